"""Pruners at work in real searches: hopeless trials end early, and what they had brought until then stays on record."""

import io
import json
from pathlib import Path

import optuna
import pytest
from drivers import driver_of
from mlflow.entities import Run
from mlflow_runs import trial_runs
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from harness import paths, report
from harness.queue import SearchQueue, TrialStore, database, samplers
from harness.runner import commands
from harness.spec import TrialSpec
from harness.study import Pruner, Real, Search, SearchBudget
from harness.tracking import MlflowTracker

SEEDS, TRIALS, ENOUGH = 6, 6, 5  # all five worse: p = 1/32, the first below 0.05
STUDY = f'''"""Which learning rate is best, over seeds?"""
from harness.spec import TrialSpec
from harness.study import Pruner, Real, Search, SearchBudget

STUDY = Search(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(16,), batch_size=256),
    space={{"learning_rate": Real(1e-6, 1e-1, log=True)}},
    objectives=("elbo/validation",),
    seeds=range({SEEDS}),
    sampler="random",
    pruner=Pruner(name="wilcoxon", first=2),
    budgets={{"default": SearchBudget(trials={TRIALS}, epochs=2, refit_seeds=range(100, 102))}},
)
'''


def start() -> str:
    """`harness study` in this process; what it says."""
    said = io.StringIO()
    assert commands.run_study("over_seeds", "default", "cpu", 1, Console(file=said, width=200), executor="local") == 0
    return said.getvalue()


def searched() -> list[FrozenTrial]:
    """The trials of the one search on record."""
    (name,) = (n for n in optuna.get_all_study_names(database()) if not n.endswith(".refit"))
    return TrialStore(name, ["maximize"], database()).trials()


def runs_of(tracker: MlflowTracker) -> dict[str, Run]:
    """All runs of trials, by id."""
    return {r.info.run_id: r for r in trial_runs(tracker)}


@pytest.mark.slow
def test_bad_trials_are_pruned_over_seeds_and_good_ones_do_all(
    tmp_path: Path, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "over_seeds.py").write_text(STUDY)
    monkeypatch.setattr(paths, "studies", lambda: tmp_path)
    said = start()

    trials, runs = searched(), runs_of(MlflowTracker("over_seeds", "default", ""))
    complete, pruned = ([t for t in trials if t.state == s] for s in (TrialState.COMPLETE, TrialState.PRUNED))
    assert len(complete) + len(pruned) == TRIALS
    best = max(complete, key=lambda t: t.value)
    for t in trials:
        reports = t.intermediate_values
        assert list(reports) == list(range(SEEDS if t in complete else ENOUGH))
        mine = [runs[t.user_attrs[f"run.{i}"]] for i in reports]
        assert [r.data.tags["seed"] for r in mine] == [str(i) for i in reports]
        assert [r.data.metrics["elbo/validation"] for r in mine] == list(reports.values())
        assert {r.info.status for r in mine} == {"FINISHED"}
        assert f"run.{len(reports)}" not in t.user_attrs
    for t in complete:
        assert t.value == pytest.approx(sum(t.intermediate_values.values()) / SEEDS)
    for t in pruned:
        assert t.user_attrs["pruned"] == f"pruned after {ENOUGH} seeds"
        assert all(v < best.intermediate_values[i] for i, v in t.intermediate_values.items())
    assert len(pruned) >= 3

    spent, whole = 2 * sum(len(t.intermediate_values) for t in trials), 2 * SEEDS * TRIALS
    assert f"{spent} epochs spent; without pruning the same trials take {whole}" in said
    assert f"[{SEEDS * TRIALS}/{SEEDS * TRIALS}]" in said
    assert f"trial #{best.number}" in said
    verdicts = json.loads((report.folder("over_seeds", "default") / "verdicts.json").read_text())
    assert "tuned beats base" in json.dumps(verdicts) + said

    again = start()
    assert "nothing to do: all trials are done" in again
    assert "finished twice" not in again
    assert {r: (x.info.status, x.info.end_time) for r, x in runs.items()} == {
        r: (x.info.status, x.info.end_time) for r, x in runs_of(MlflowTracker("over_seeds", "default", "")).items()
    }


def test_the_brackets_of_hyperband_are_there_before_the_first_report() -> None:
    study = optuna.create_study(study_name="brackets", pruner=samplers.pruner(Pruner(name="hyperband"), 9))  # drawn by the name
    for _ in range(20):
        study.tell(study.ask(), 1.0)
    brackets = [study.pruner._get_bracket_id(study, t) for t in study.trials]
    assert set(brackets) == {0, 1, 2}
    study.ask().should_prune()
    assert [study.pruner._get_bracket_id(study, t) for t in study.trials[:20]] == brackets


@pytest.mark.parametrize(("name", "epochs"), [("median", 4), pytest.param("hyperband", 9, marks=pytest.mark.slow)])
def test_a_trial_that_is_pruned_takes_fewer_epochs(name: str, epochs: int, tmp_path: Path, mlflow_store: Path) -> None:
    search = Search(
        base=TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=256),
        space={"learning_rate": Real(1e-6, 1e-1, log=True)},
        objectives=("elbo/validation",),
        sampler="random",
        pruner=Pruner(name=name, first=1, factor=3),
        budgets={"default": SearchBudget(trials=18, epochs=epochs)},
    )
    tracker = MlflowTracker("a_search", "default", "")
    queue = SearchQueue(TrialStore(f"by_{name}", ["maximize"], database()), search, "default", 1)
    driver = driver_of(queue, tracker, tmp_path)
    driver.headline = "elbo/validation"
    queue.prepare()
    driver.run()
    assert queue.missing == 0

    trials, runs = queue.store.trials(), runs_of(tracker)
    assert len(trials) == len(runs) == 18
    for t in trials:
        steps = [m.step for m in tracker.client.get_metric_history(t.user_attrs["run.0"], "elbo/train")]
        status = runs[t.user_attrs["run.0"]].info.status
        assert list(t.intermediate_values) == steps == list(range(1, len(steps) + 1))
        if t.state == TrialState.COMPLETE:
            assert (len(steps), status) == (epochs, "FINISHED")
            assert t.value == t.intermediate_values[epochs]
        else:
            assert (t.state, status) == (TrialState.PRUNED, "KILLED")
            assert t.user_attrs["pruned"] == f"pruned at epoch {len(steps)}"
            assert len(steps) < epochs
    pruned = [t for t in trials if t.state == TrialState.PRUNED]
    assert len(pruned) >= 3
    assert queue.best()[0].values == {"elbo/validation": max(t.value for t in trials if t.state == TrialState.COMPLETE)}
    if name == "hyperband":
        assert len({len(t.intermediate_values) for t in pruned}) > 1, "one bracket only"
    before = {r: x.info.status for r, x in runs.items()}
    assert driver_of(queue, tracker, tmp_path).reconcile() == []
    assert {r: x.info.status for r, x in runs_of(tracker).items()} == before
