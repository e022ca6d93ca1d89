"""The queue of a search: what it asks for depends on the history alone, whoever is killed when."""

import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import wait
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from harness.queue import Assignment, SearchQueue, TrialStore, database, lost_results
from harness.spec import TrialSpec
from harness.study import OneOf, Pruner, Real, Search, SearchBudget, Whole
from harness.tracking import Record

BASE = TrialSpec(dataset="digits", network="mlp")
SPACE = {"learning_rate": Real(1e-4, 1e-1, log=True), "latent": Whole(2, 16), "activation": OneOf(("elu", "relu", "tanh"))}


def search(trials: int = 14, **changes: object) -> Search:
    values: dict = {"base": BASE, "space": SPACE, "objectives": ("elbo/validation",)}
    values |= {"budgets": {"default": SearchBudget(trials=trials, epochs=9)}}
    return Search(**(values | changes))


def quality(spec: TrialSpec, epoch: int = 9) -> float:
    """A smooth landscape with a best point, and a little luck of the seed."""
    import math

    away = (math.log10(spec.learning_rate) + 2.5) ** 2 + 0.01 * (spec.latent - 9) ** 2 + 0.2 * (spec.activation != "elu")
    return -100 - 10 * away - 20 / epoch + 0.1 * math.sin(1e3 * spec.seed + spec.latent)


class Killed(BaseException):
    """The driver ends here; nothing catches it."""


class Runs:
    """A tracker's side of the protocol: statuses and metrics of runs, which survive a kill."""

    def __init__(self) -> None:
        self.runs: dict[str, tuple[str, dict[str, float]]] = {}
        self.of: dict[str, tuple[int, TrialSpec]] = {}

    def begin(self, assignment: Assignment) -> str:
        run = f"run-{len(self.of)}"
        self.runs[run] = ("RUNNING", {})
        self.of[run] = (assignment.number, assignment.cell.spec)
        return run

    def record(self, run: str) -> Record:
        number, spec = self.of[run]
        return Record(run, self.runs[run][1], {"trial": str(number), "cell": spec.id, "digest": f"of {run}"})

    def series(self, run: str, key: str) -> dict[int, float]:
        return {epoch: quality(self.of[run][1], epoch) for epoch in (3, 6, 9)} if key == "elbo/validation" else {}

    def look(self, run: str) -> tuple[str, Mapping[str, float]]:
        return self.runs.get(run, ("", {}))

    def finished(self) -> set[str]:
        return {r for r, (status, _) in self.runs.items() if status == "FINISHED"}


def metrics(spec: TrialSpec) -> dict[str, float]:
    return {"elbo/validation": quality(spec), "perf/throughput": 1e5 / spec.latent, "model/parameters": 1e3 * spec.latent}


queues: list[SearchQueue] = []


def drive(plan: Search, runs: Runs, order: random.Random, workers: int = 3, batch: int = 3) -> SearchQueue:
    """One start of a driver: runs end in any order, at most `workers` at a time."""
    store = TrialStore("a_search", ["maximize" if o != "model/parameters" else "minimize" for o in plan.objectives], database())
    queue = SearchQueue(store, plan, "default", batch)
    queues.append(queue)
    queue.finished = runs.finished()
    unknown = sorted(queue.finished - queue.runs(), key=list(runs.runs).index)
    queue.lost = lost_results(queue, [runs.record(run) for run in unknown], runs.series, "digest")
    queue.reconcile(runs.look, runs.finished())
    queue.prepare()
    training: dict[tuple[int, int], tuple[Assignment, int]] = {}
    while True:
        while len(training) < workers:
            assignments = queue.take(1, lambda cell: cell.spec.cohort)
            if not assignments:
                break
            run = runs.begin(assignments[0])
            queue.note_run(assignments[0], run)
            assignment = Assignment(assignments[0].number, assignments[0].cell, assignments[0].attempt, run, assignments[0].part)
            training[assignment.number, assignment.part] = (assignment, 0)
        if not training:
            if queue.busy():
                assert queue.asking is not None
                wait([queue.asking])
                continue
            return queue
        key = order.choice(sorted(training))
        assignment, epoch = training[key]
        epoch += 3
        training[key] = (assignment, epoch)
        if queue.pruning is not None and queue.pruning.report(
            assignment, epoch, {"elbo/validation": quality(assignment.cell.spec, epoch)}
        ):
            runs.runs[assignment.run] = ("KILLED", {})
            del training[key]
            queue.pruned(assignment)
        elif epoch == 9:
            runs.runs[assignment.run] = ("FINISHED", metrics(assignment.cell.spec))
            assert queue.complete(assignment, metrics(assignment.cell.spec)).counted
            del training[key]


def path(queue: SearchQueue) -> list[tuple]:
    return [(a.number, a.state, tuple(a.params.items()), a.values and tuple(a.values.values())) for a in queue.history()]


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Arms a kill at the n-th change of the database from now on."""
    left = [-10_000]
    storage = optuna.storages.RDBStorage

    def mortal(name: str) -> None:
        inner = getattr(storage, name)

        def method(self: object, *arguments: object, **named: object) -> object:
            left[0] -= 1
            if 0 >= left[0] > -10_000:  # a dead driver changes nothing more, not in its thread that asks either
                raise Killed
            return inner(self, *arguments, **named)

        monkeypatch.setattr(storage, name, method)

    for name in (
        "set_trial_state_values",
        "set_trial_user_attr",
        "set_trial_system_attr",
        "_create_new_trial",
        "set_trial_intermediate_value",
    ):
        mortal(name)

    def arm(n: int) -> None:
        for queue in queues:
            if queue.asking:
                queue.asking.exception()  # its thread must not outlive it by much
        queues.clear()
        left[0] = n

    return arm


def undisturbed(plan: Search, home: Path, seed: int, **how: int) -> list[tuple]:
    return path(drive(plan, Runs(), random.Random(seed), **how))


def killed_often(plan: Search, seed: str, dying: Callable[[int], None], **how: int) -> tuple[SearchQueue, Runs, int]:
    """Starts that are killed at random changes of the database, until one gets to the end; and how many were."""
    chance, runs, kills = random.Random(seed), Runs(), 0
    while True:
        dying(chance.randint(5, 45))
        try:
            return drive(plan, runs, chance, **how), runs, kills
        except Killed:
            kills += 1


PLANS: dict[str, Callable[[], Search]] = {
    "gp": lambda: search(sampler="gp"),
    "tpe": lambda: search(sampler="tpe", trials=20),
    "random": lambda: search(sampler="random"),
    "qmc": lambda: search(sampler="qmc"),
    "nsga2": lambda: search(sampler="nsga2", objectives=("elbo/validation", "model/parameters")),
}

WHOLE_PLANS = [name if name in ("gp", "random") else pytest.param(name, marks=pytest.mark.slow) for name in PLANS]


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new home folder each time."""

    def each() -> Iterator[Path]:
        for i in range(1000):
            home = tmp_path / str(i)
            monkeypatch.setenv("HARNESS_HOME", str(home))
            yield home

    return each()


@pytest.mark.parametrize("name", WHOLE_PLANS)
def test_the_path_depends_neither_on_timing_nor_on_kills(name: str, homes: Iterator[Path], dying: Callable[[int], None]) -> None:
    plan = PLANS[name]()
    wanted, other = (undisturbed(plan, next(homes), seed) for seed in (1, 2))
    assert other == wanted
    assert [state for _, state, *_ in wanted] == ["COMPLETE"] * len(wanted)
    next(homes)
    queue, runs, kills = killed_often(plan, name, dying)
    assert kills >= 3
    assert path(queue) == wanted
    done = [t for t in queue.store.trials() if t.state == TrialState.COMPLETE]
    assert len(done) == plan.budgets["default"].trials
    assert {t.user_attrs["run.0"] for t in done} == queue.runs() == runs.finished() & queue.runs()


@pytest.mark.parametrize(
    ("name", "kills"),
    [("gp", [40]), ("nsga2", [40]), ("seeds", [7, 12, 16, 21])],
    ids=["gp", "nsga2", "in-the-middle-of-a-trial-s-seeds"],
)
def test_a_search_whose_trials_were_lost_has_their_results_again_from_its_runs(
    name: str, kills: list[int], homes: Iterator[Path], dying: Callable[[int], None]
) -> None:
    """Lost again and again, and each time a start that reads them back is killed: the next one goes on."""
    plan, runs = (PLANS[name]() if name in PLANS else search(trials=3, seeds=range(100, 103))), Runs()
    next(homes)
    wanted = path(drive(plan, runs, random.Random(1)))
    begun = len(runs.runs)
    for changes in kills:
        next(homes)
        dying(changes)
        with pytest.raises(Killed):
            drive(plan, runs, random.Random(2))
        dying(10_000)
        again = drive(plan, runs, random.Random(3))
        assert path(again) == wanted
        assert len(runs.runs) == begun
        trials = [t.user_attrs for t in again.store.trials()]
        named = {t[f"run.{part}"]: t[f"manifest.{part}"] for t in trials for part in range(len(plan.seeds))}
        assert named.keys() == again.runs() == runs.finished()
        assert all(digest == f"of {run}" for run, digest in named.items())


def test_results_that_are_gone_are_trained_again_and_the_others_are_not(homes: Iterator[Path]) -> None:
    plan, runs = search(trials=5), Runs()
    next(homes)
    drive(plan, runs, random.Random(1))
    for run in ("run-1", "run-3"):
        del runs.runs[run]
    queue = drive(plan, runs, random.Random(2))
    assert not queue.gone()
    assert runs.finished() == {"run-0", "run-2", "run-4", "run-5", "run-6"}
    assert len(queue.best()) == 1
    assert [t.state.name for t in queue.store.trials()] == ["COMPLETE"] * 7


PRUNED: dict[str, Callable[[], Search]] = {
    "asha": lambda: search(pruner=Pruner(name="asha", first=3), sampler="tpe"),
    "hyperband": lambda: search(pruner=Pruner(name="hyperband", first=3), sampler="tpe", trials=16),
    "median": lambda: search(pruner=Pruner(name="median", first=3), sampler="gp"),
    "wilcoxon": lambda: search(pruner=Pruner(name="wilcoxon", first=2, p=0.1), sampler="tpe", trials=9, seeds=range(100, 106)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRUNED)
def test_a_pruned_search_at_one_place_takes_its_path_whoever_is_killed(
    name: str, homes: Iterator[Path], dying: Callable[[int], None]
) -> None:
    plan = PRUNED[name]()
    wanted = undisturbed(plan, next(homes), 0, workers=1, batch=2)
    assert sum(state == "PRUNED" for _, state, *_ in wanted) >= 3
    next(homes)
    queue, runs, kills = killed_often(plan, name, dying, workers=1, batch=2)
    assert kills >= 3
    assert path(queue) == wanted
    over_seeds = len(plan.seeds) > 1
    ends = [len(a.reports) if over_seeds else a.state == "COMPLETE" for a in queue.history()]
    assert len(runs.finished() & queue.runs()) == sum(ends)  # a pruned trial's first seeds are not taken for strays


@pytest.mark.slow
@pytest.mark.parametrize("name", ["asha", "wilcoxon"])
def test_of_a_pruned_search_whose_trials_were_lost_only_what_was_pruned_trains_again(name: str, homes: Iterator[Path]) -> None:
    plan, runs = PRUNED[name](), Runs()
    next(homes)
    before = {a.number: a for a in drive(plan, runs, random.Random(0), workers=1, batch=2).history()}
    done, begun = runs.finished(), len(runs.runs)
    next(homes)
    again = drive(plan, runs, random.Random(0), workers=1, batch=2)
    assert done <= again.runs()
    assert begun < len(runs.runs) < 2 * begun
    first = [a for a in again.history() if a.number < 2]
    assert [(a.params, a.state) for a in first] == [(before[a.number].params, before[a.number].state) for a in first]


def test_a_judgement_that_is_cut_off_is_the_same_when_taken_again(homes: Iterator[Path], dying: Callable[[int], None]) -> None:
    """The second trial is worse than the first at the first rung of successive halving; a kill at each change in turn."""
    plan, marks, kills, cut = PRUNED["asha"](), [], 0, True
    while cut:
        next(homes)
        queue = SearchQueue(TrialStore("a_search", ["maximize"], database()), plan, "default", 2)
        queue.prepare()
        assert queue.asking
        queue.asking.result()
        judge, trial = queue.outcomes.judge, queue.store.trial
        assert not judge(0, 3, 1.0)
        dying(len(marks) + 1)
        try:
            verdict, cut = judge(1, 3, 0.0), False
        except Killed:
            kills += 1
        dying(-10_000)
        if cut:
            verdict = judge(1, 3, 0.0)
        assert verdict
        assert trial(1).user_attrs["pruned"] == "pruned at epoch 3"
        marks.append({k: v for k, v in trial(1).system_attrs.items() if k.startswith("completed_rung")})
    assert kills == 5  # the value, the note, the rung, the outcome and its reason
    assert marks == [{"completed_rung_0": 0.0}] * 6
