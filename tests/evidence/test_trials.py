"""Trials of a search, held against the runs that they name: what its rules allow is no fault, what was edited is one."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from optuna.trial import TrialState

from harness import paths
from harness.evidence.faults import Found
from harness.evidence.trials import store_faults
from harness.queue import Assignment, SearchQueue, TrialStore, database, stores_on_record
from harness.spec import TrialSpec
from harness.study import OneOf, Real, Search, SearchBudget, Whole, Widths
from harness.tracking import Inspected, Record, params_of

NAME = "a_search.default.points"
SEARCH = Search(
    base=TrialSpec(dataset="digits", network="mlp", evaluation="validation"),
    space={
        "learning_rate": Real(1e-4, 1e-1, log=True),
        "latent": Whole(2, 16),
        "hidden": Widths((1, 3), (8, 32)),
        "likelihood": OneOf(("mse", "bce")),
        "likelihood_args.sigma": Real(0.5, 1.0, when={"likelihood": "mse"}),
    },
    objectives=("validation/squared_error",),
    seeds=(0, 1),
    sampler="random",
    budgets={"default": SearchBudget(trials=6, epochs=3, refit_seeds=range(100, 105))},
)
TUPLES = Search(
    base=SEARCH.base,
    space={"hidden": OneOf(((16,), (16, 8), None)), "learning_rate": Real(1e-4, 1e-2)},
    objectives=SEARCH.objectives,
    seeds=(0, 1),
    sampler="random",
    budgets=SEARCH.budgets,
)


class Recorded:
    """A search that was run without training: its queue, and its runs as MLflow would show them."""

    def __init__(self, search: Search) -> None:
        self.queue = SearchQueue(TrialStore(NAME, ["minimize"], database()), search, "default", 3)
        self.runs: list[Inspected] = []
        self.started = 0

    def start(self) -> Assignment:
        """Begin the next run."""
        while not (taken := self.queue.take(1, lambda cell: cell.spec)):  # points are asked for in the background
            assert self.queue.busy()
        (assignment,) = taken
        self.started += 1
        run = f"run-{self.started}"
        self.queue.note_run(assignment, run)
        return Assignment(assignment.number, assignment.cell, assignment.attempt, run, assignment.part)

    def record(self, a: Assignment, status: str, value: float) -> dict[str, float]:
        """Put a run into the tracking store."""
        spec, metrics = a.cell.spec, {"validation/squared_error": value, "kl/validation": 7.0}
        tags = {"arm": a.cell.arm, "seed": str(spec.seed), "trial": str(a.number), "cell": spec.id, "ledger": NAME}
        params = params_of(spec.as_dict(), spec.id, a.cell.arm)
        self.runs.append(Inspected(record=Record(a.run, metrics, tags), params=params, status=status, files=""))
        return metrics

    def finish(self, a: Assignment) -> None:
        """End a run with a score."""
        self.queue.complete(a, self.record(a, "FINISHED", 100.0 + 0.1 * len(self.runs)))

    def complete(self) -> "Recorded":
        """Do all that is left."""
        while self.queue.missing:
            self.finish(self.start())
        return self

    def faults(self) -> list[str]:
        """What is wrong with the two stores."""
        found = Found()
        trials, _ = stores_on_record("a_search", "default")
        store_faults(found, self.runs, trials, {})
        return found.lines


def edit(statement: str) -> None:
    with closing(sqlite3.connect(paths.mlruns() / "optuna.db")) as connection, connection:
        assert connection.execute(statement).rowcount == 1


@pytest.fixture
def recorded(home: Path) -> Recorded:
    recorded = Recorded(SEARCH)
    recorded.queue.prepare()
    return recorded


@pytest.mark.parametrize("search", [SEARCH, TUPLES])
def test_a_whole_search_is_as_its_runs_are(home: Path, search: Search) -> None:
    recorded = Recorded(search)
    recorded.queue.prepare()
    assert recorded.complete().faults() == []
    assert len(recorded.runs) == 12


def test_a_trial_that_failed_for_good_may_have_a_finished_run(recorded: Recorded) -> None:
    first, second = recorded.start(), recorded.start()
    assert first.number == second.number
    recorded.finish(first)
    recorded.record(second, "FAILED", 0)
    recorded.queue.fail(second, "diverged", final=True)
    recorded.complete()
    assert recorded.queue.store.trial(first.number).state == TrialState.FAIL
    assert recorded.faults() == []
    edit("UPDATE trials SET state = 'FAIL' WHERE number = 1")
    assert "the run is FINISHED, but the state of its trial is FAIL" in recorded.faults()[0]


def test_a_trial_that_was_queued_again_may_have_a_finished_run(recorded: Recorded) -> None:
    first = recorded.start()
    recorded.finish(first)
    recorded.queue.store.study.tell(first.number, state=TrialState.FAIL)  # not by us: no reason is stored
    recorded.queue.reconcile(lambda run: ("", {}), {first.run})
    recorded.queue.prepare()
    recorded.complete()
    cells = [r.tags["cell"] for r in recorded.runs]
    assert cells.count(first.cell.spec.id) == 2
    assert recorded.faults() == []


def test_edited_trials_are_named(recorded: Recorded) -> None:
    recorded.complete()
    edit("UPDATE trial_values SET value = value + 1e-9 WHERE trial_id = 1")
    edit("UPDATE trial_user_attributes SET value_json = replace(value_json, '[1', '[2') WHERE key = 'values.1' AND trial_id = 2")
    edit("UPDATE trial_params SET param_value = param_value + 1 WHERE param_name = 'latent' AND trial_id = 3")
    edit("UPDATE trial_params SET param_value = param_value + 1 WHERE param_name = 'hidden/1' AND trial_id = 4")
    edit("UPDATE trial_params SET param_value = 1 - param_value WHERE param_name = 'likelihood' AND trial_id = 5")
    lines = recorded.faults()
    for number, what in {
        0: "but the mean of its seeds' values is",
        1: "but the mean of its seeds' values is",
        2: "the point of the trial has latent ",
        3: "the point of the trial has hidden [",
        4: "the point of the trial has likelihood ",
    }.items():
        assert any(f"trial {number} of {NAME}" in line and what in line for line in lines), lines
    assert not any(f"trial 5 of {NAME}" in line for line in lines)
