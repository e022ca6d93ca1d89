"""The report of a search: true to its trials, complete for any kind of search, and readable where there is little to say."""

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drivers import driver_of, queue_of
from memory_tracker import MemoryTracker
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console

from harness import report
from harness.queue import SearchQueue, TrialStore, samplers
from harness.report.search import axes
from harness.report.search import tables as words
from harness.spec import TrialSpec
from harness.study import SCORES, Constraint, OneOf, Pruner, Real, Search, SearchBudget, Whole, Widths

Brought = Mapping[str, float] | int | str  # a trial's scores; or pruned after so many epochs or seeds; or why it failed
BASE = TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=600)
RATE = {"learning_rate": Real(1e-4, 1e-1, log=True)}
SPACE = RATE | {"latent": Whole(2, 16), "activation": OneOf(("elu", "relu", "tanh"))}
EPOCHS = 4


def search_of(trials: int, **changes: object) -> Search:
    values: dict = {"base": BASE, "space": SPACE, "objectives": ("elbo/validation",), "sampler": "random"}
    values |= {"budgets": {"default": SearchBudget(trials=trials, epochs=EPOCHS, refit_seeds=range(1, 6))}}
    return Search(**(values | changes))


def scores(spec: TrialSpec) -> Brought:
    """The learning rate matters most; large networks are better and slower."""
    elbo = -100 - 10 * (math.log10(spec.learning_rate) + 2.5) ** 2 + 1e-2 * sum(spec.hidden)
    costs = {"perf/throughput": 1e5 / sum(spec.hidden), "model/parameters": 1e3 * sum(spec.hidden), "perf/step_ms": 1.0}
    return {"elbo/validation": elbo, "validation/squared_error": -elbo / 4} | costs


def found_of(plan: Search, brings: Callable[[TrialSpec], Brought] = scores, over: int = 1000) -> report.SearchResults:
    """A search whose trials bring made-up scores; after so many that are over, the others are under way."""
    directions = ["minimize" if SCORES[o].better == "lower" else "maximize" for o in plan.objectives]
    store = TrialStore("a_search", directions, "sqlite://")
    store.note_study({"sampler": plan.sampler_of("default")})
    point = partial(plan.point, "default")
    for i, asked in enumerate(samplers.ask(store.study, plan.sampler_of("default"), point, plan.budgets["default"].trials)):
        spec = point(lambda p, asked=asked: asked.params[p.name])
        store.study.add_trial(_over(plan, asked, brings(spec) if i < over else None))
    queue = SearchQueue(store, plan, "default", 4)
    queue.finished = {f"run-{i}" for i in range(len(plan.seeds))}
    return report.SearchResults.of(plan, "default", queue)


def _over(plan: Search, asked: FrozenTrial, brought: Brought | None) -> FrozenTrial:
    """A trial as the store keeps it when it is over, or while it is under way."""
    facts: dict = {"batch": 0, "of": 1, "repeat": 0} | {f"run.{i}": f"run-{i}" for i in range(len(plan.seeds))}
    how: dict = {"state": TrialState.RUNNING}
    first = 0 if len(plan.seeds) > 1 else 1
    last = len(plan.seeds) - 1 if first == 0 else EPOCHS
    match brought:
        case int():
            reports = {step: -150.0 + step for step in range(first, first + brought)}
            how = {"state": TrialState.PRUNED, "value": -150.0, "intermediate_values": reports}
            facts["pruned"] = f"pruned at epoch {brought}"
        case str():
            how = {"state": TrialState.FAIL}
            facts["failure"] = brought
        case {}:
            values = [brought[o] for o in plan.objectives]
            how = {"values": values, "constraints": {c.score: c.excess(brought[c.score]) for c in plan.constraints}}
            if plan.pruner is not None:
                how["intermediate_values"] = {step: values[0] - 50 / (step + 1) for step in range(first, last + 1)}
    return create_trial(params=asked.params, distributions=asked.distributions, user_attrs=facts, **how)


def fails(spec: TrialSpec) -> str:
    return "loss is not finite at epoch 1"


def mixed(spec: TrialSpec) -> Brought:
    """Diverges, or does not keep up, or goes on to the end."""
    if spec.learning_rate > 3e-2:
        return fails(spec)
    return 1 + spec.latent % 2 if spec.activation == "tanh" else scores(spec)


def all_alike(spec: TrialSpec) -> Brought:
    return {"elbo/validation": -100.0}


ASHA = Pruner(name="asha", first=1, factor=3)
CONDITIONAL: dict = {
    "hidden": Widths((1, 3), (8, 64)),
    "optimizer": OneOf(("adam", "adamw")),
    "weight_decay": Real(1e-4, 1e-1, log=True, when={"optimizer": "adamw"}),
}
LARGE = (Constraint(score="model/parameters", at_most=60_000),)
NEVER = (Constraint(score="perf/step_ms", at_most=0.5),)
KINDS: Mapping[str, tuple[Callable[[], report.SearchResults], set[str]]] = {
    "plain": (lambda: found_of(search_of(12)), {"history", "importances", "slices", "contour", "parallel"}),
    "pruned": (
        lambda: found_of(search_of(12, pruner=ASHA), mixed),
        {"history", "curves", "slices", "contour", "parallel"},
    ),
    "one trial": (lambda: found_of(search_of(1)), {"history"}),
    "all failed": (lambda: found_of(search_of(3), fails), set()),
    "none over": (lambda: found_of(search_of(3), over=0), set()),
    "under way": (lambda: found_of(search_of(12), over=5), {"history", "slices", "contour", "parallel"}),
    "one parameter": (lambda: found_of(search_of(12, space=RATE)), {"history", "slices"}),
    "all alike": (lambda: found_of(search_of(12), all_alike), {"history", "slices", "contour", "parallel"}),
    "conditional": (
        lambda: found_of(search_of(16, space=CONDITIONAL)),
        {"history", "importances", "slices", "contour", "parallel"},
    ),
    "two objectives": (
        lambda: found_of(
            search_of(12, space=RATE | {"hidden": Widths((2, 2), (8, 64))}, objectives=("elbo/validation", "perf/throughput"))
        ),
        {"pareto", "history", "importances", "slices", "contour", "parallel"},
    ),
    "three objectives": (
        lambda: found_of(
            search_of(
                12,
                space=RATE | {"hidden": Widths((2, 2), (8, 64))},
                objectives=("validation/squared_error", "perf/throughput", "model/parameters"),
                constraints=LARGE,
            )
        ),
        {"pareto", "history", "importances", "slices", "contour", "parallel"},
    ),
    "none keeps the constraint": (
        lambda: found_of(search_of(4, constraints=NEVER)),
        {"history", "slices", "contour", "parallel"},
    ),
    "several seeds": (
        lambda: found_of(search_of(14, seeds=range(20, 26), pruner=Pruner(name="wilcoxon")), mixed),
        {"history", "curves", "slices", "contour", "parallel"},
    ),
}


def untested(found: report.SearchResults, tracker: MemoryTracker) -> report.AblationResults:
    """The findings of a search whose best has not been trained again."""
    refit = found.search.judged("default", {f"#{a.number}": a.spec for a in found.best[:1]})
    return report.AblationResults.collect("learning_rate_search", "default", refit, {}, {}, tracker)


def said_of(found: report.SearchResults) -> str:
    return " ".join(words.sentences(found))


@pytest.mark.parametrize("kind", KINDS)
def test_any_search_has_a_report_with_all_that_there_is_to_show(kind: str) -> None:
    make, figures = KINDS[kind]
    found, tracker = make(), MemoryTracker()
    report.publish(untested(found, tracker), tracker, found)
    assert {n.removeprefix("search_").removesuffix(".png") for n in tracker.report if n.endswith(".png")} == figures
    assert {"report.html", "search.csv"} <= set(tracker.report)
    page = (report.folder("learning_rate_search", "default") / "report.html").read_text()
    assert not re.search(r'src="(?!data:)', page)
    assert page.count("<svg role") == len(figures)
    assert set(re.findall(r'<a href="([^#"]*)"', page)) <= set(tracker.report)
    assert words.NO_REFIT in page
    screen = io.StringIO()
    report.show(untested(found, tracker), Console(file=screen, width=80, force_terminal=True, color_system=None), found)
    assert words.NO_REFIT in " ".join(screen.getvalue().split())
    assert all(len(line) <= 80 for line in screen.getvalue().splitlines())


def test_the_sentences_count_what_the_store_holds() -> None:
    found = found_of(search_of(14, pruner=ASHA), mixed)
    complete, pruned, failed = (found.in_state(state) for state in ("COMPLETE", "PRUNED", "FAIL"))
    assert all((complete, pruned, failed))
    said = said_of(found)
    assert f"14 of 14 trials asked for by random (Optuna {found.optuna}): " in said
    assert f"{len(complete)} complete, {len(pruned)} pruned by asha, {len(failed)} failed." in said
    spent = EPOCHS * len(complete) + sum(int(a.why.split()[-1]) for a in pruned)  # "pruned at epoch 2"
    assert f"{spent} epochs spent; without pruning the same trials take {EPOCHS * (len(complete) + len(pruned))} " in said
    best = max(complete, key=lambda a: a.values["elbo/validation"] if a.values else -math.inf)
    assert (
        f"Best: trial #{best.number}, validation ELBO (nats) {(best.values or {})['elbo/validation']:.2f}, at learning_rate" in said
    )
    assert f"Failed, {fails(BASE)}: {', '.join(f'#{a.number}' for a in failed)}." in said


def test_a_search_says_what_it_cannot_say() -> None:
    assert "Too few trials are complete to say which parameter matters: 10 are needed." in said_of(KINDS["one trial"][0]())


def test_a_search_without_a_winner_says_so() -> None:
    found = KINDS["none keeps the constraint"][0]()
    assert "No complete trial keeps the constraints, so there is no best one." in said_of(found)
    assert "4 of 4 complete trials break a constraint (step (ms) of at most 0.5); none of them is chosen." in said_of(found)
    assert [row[-1] for row in words.rows(found, words.top(found)[1], [])] == ["no"] * 4


def test_all_trials_are_in_the_csv_and_only_complete_ones_have_a_value() -> None:
    found, tracker = found_of(search_of(14, pruner=ASHA), mixed), MemoryTracker()
    report.publish(untested(found, tracker), tracker, found)
    trials = pd.read_csv(report.folder("learning_rate_search", "default") / "search.csv")
    assert trials["number"].tolist() == list(range(14))
    assert trials["elbo/validation"].notna().tolist() == [s == "COMPLETE" for s in trials["state"]]
    assert trials.loc[trials["state"] != "COMPLETE", "reason"].notna().all()
    assert set(trials["runs"]) == {"run-0"}
    for a, row in zip(found.history, trials.to_dict("records"), strict=True):
        assert row["learning_rate"] == pytest.approx(a.params["learning_rate"])


def test_the_table_is_the_front_and_nothing_else_of_several_objectives() -> None:
    found = KINDS["two objectives"][0]()
    _, listed = words.top(found)
    pairs = {a.number: tuple((a.values or {}).values()) for a in found.in_state("COMPLETE")}
    ahead = {n for n, p in pairs.items() if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in pairs.values())}
    assert {a.number for a in listed} == ahead
    qualities = [pairs[a.number][0] for a in listed]
    assert all(a >= b for a, b in pairwise(qualities))


@pytest.mark.parametrize("objective", ["elbo/validation", "validation/squared_error"])
def test_the_parameter_that_decides_matters_most_whichever_way_is_better(objective: str) -> None:
    """Bad trials lie at both ends of the range and good ones together: an analysis of the worst instead would say otherwise."""

    def brings(spec: TrialSpec) -> Brought:
        good = spec.latent == 9 or abs(math.log10(spec.learning_rate) + 2.5) < 0.3
        elbo = -100 - (0 if good else 50) - 10 * (math.log10(spec.learning_rate) + 2.5) ** 2
        return {"elbo/validation": elbo, "validation/squared_error": -elbo}

    found = found_of(search_of(40, objectives=(objective,)), brings)
    assert sum(found.importances.values()) == pytest.approx(1)
    assert next(iter(found.importances)) == "learning_rate"
    assert next(iter(found.parameters)) == "learning_rate"
    assert found.importances["learning_rate"] > 0.5


def test_no_parameter_matters_where_all_trials_are_alike() -> None:
    found = KINDS["all alike"][0]()
    assert found.importances == {}
    assert "No parameter sets the best trials apart" in said_of(found)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_axis_leaves_out_what_diverged_and_says_so(sign: int) -> None:
    objective = SCORES[{1: "elbo/validation", -1: "validation/squared_error"}[sign]]
    usual = sign * np.linspace(-110, -100, 20)
    every = axes.window(usual, (), objective)
    assert (every.low, every.high, every.cut) == (usual.min(), usual.max(), 0)
    assert every.note(objective) == ""
    cut = axes.window([*usual, sign * -5000.0, np.nan], [sign * -900.0], objective)
    assert (cut.low, cut.high, cut.cut, cut.worst) == (usual.min(), usual.max(), 2, sign * -5000.0)
    assert "5,000" in cut.note(objective)
    assert cut.outside([sign * -5000.0, sign * -105.0]).tolist() == [True, False]


def test_a_good_outlier_is_never_left_out() -> None:
    w = axes.window([-110.0, -109.0, -108.0, -107.0, -5.0], (), SCORES["elbo/validation"])
    assert w.high == -5.0


@pytest.mark.slow
def test_the_test_of_the_best_stands_above_the_search(tmp_path: Path) -> None:
    found, tracker = found_of(search_of(4)), MemoryTracker()
    refit = replace(found.search, base=BASE.derive(learning_rate=1e-5)).judged(
        "default", {"tuned": BASE.derive(learning_rate=3e-3)}
    )
    cheap = replace(refit, budgets={"default": replace(refit.budgets["default"], epochs=1)})
    queue = queue_of(cheap)
    queue.prepare()
    driver_of(queue, tracker, tmp_path).run()
    findings = report.AblationResults.collect("learning_rate_search", "default", cheap, queue.done(), queue.given_up(), tracker)
    report.publish(findings, tracker, found)
    page = (report.folder("learning_rate_search", "default") / "report.html").read_text()
    order = ["tuned: the base with learning_rate = 0.003.", "tuned beats base on ELBO (nats):", "The search", "Scores that compare"]
    positions = [page.index(part) for part in order]
    assert positions == sorted(positions)
    assert {"arms.csv", "search.csv", "search_history.png", "scores.png", "verdicts.json"} <= set(tracker.report)
    screen = io.StringIO()
    report.show(findings, Console(file=screen, width=100), found)
    assert screen.getvalue().index("The best trials") < screen.getvalue().index("tuned beats base")


def test_a_winner_that_is_the_base_is_not_tested() -> None:
    found = found_of(search_of(1))
    assert words.tested(found, found.search.judged("default", {"tuned": BASE})) == [words.THE_BASE]
    lost = KINDS["all failed"][0]()
    assert words.tested(replace(found, best=[]), lost.search.judged("default", {})) == [words.NO_BEST]


def test_the_note_says_what_is_searched() -> None:
    plan = search_of(4, pruner=ASHA, constraints=LARGE)
    note = report.note("learning_rate_search", "default", plan)
    for part in ("4 trials of 4 epochs by random, pruned by asha", "`latent`", "`elbo/validation`", "60,000", "5 new seeds"):
        assert part in note
