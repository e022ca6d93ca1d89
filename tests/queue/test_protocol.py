"""What a driver may count on with any queue: one contract, held by the queue of an ablation and by that of a search."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.queue import AblationQueue, Assignment, SearchQueue, TrialQueue, TrialStore, database
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Pruner, Real, Search, SearchBudget

BASE = TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=512)
SCORES = {"validation/squared_error": 3.0, "elbo/validation": -100.0}
TRIALS = 4


def of_ablation() -> TrialQueue:
    study = Ablation(
        base=BASE, arms={"bce": {}, "mse": {"likelihood": "mse"}}, budgets={"default": Budget(epochs=2, seeds=range(TRIALS // 2))}
    )
    store = TrialStore("contract.default", ["minimize"], database())
    return AblationQueue(store, study.cells("default"), lambda metrics: metrics["validation/squared_error"])


def search_of(pruner: Pruner | None) -> Search:
    return Search(
        base=BASE,
        space={"learning_rate": Real(1e-4, 1e-2, log=True)},
        objectives=("elbo/validation",),
        sampler="random",
        pruner=pruner,
        budgets={"default": SearchBudget(trials=TRIALS, epochs=2)},
    )


def of_search() -> TrialQueue:
    return SearchQueue(TrialStore("contract.search", ["maximize"], database()), search_of(None), "default", TRIALS)


def of_pruned_search() -> TrialQueue:
    pruner = Pruner(name="median")
    return SearchQueue(TrialStore("contract.pruned", ["maximize"], database()), search_of(pruner), "default", TRIALS)


Make = Callable[[], TrialQueue]
every_queue = pytest.mark.parametrize("make", [of_ablation, of_search, of_pruned_search])


class Runs:
    """Runs by id, with their status: what a tracker would say."""

    def __init__(self) -> None:
        self.status: dict[str, str] = {}

    def begin(self, queue: TrialQueue, assignment: Assignment) -> Assignment:
        run = f"run-{len(self.status)}"
        self.status[run] = "RUNNING"
        queue.note_run(assignment, run)
        return Assignment(assignment.number, assignment.cell, assignment.attempt, run, assignment.part)

    def look(self, run: str) -> tuple[str, dict[str, float]]:
        return self.status.get(run, ""), SCORES

    @property
    def finished(self) -> set[str]:
        return {run for run, status in self.status.items() if status == "FINISHED"}


def ready(make: Make) -> TrialQueue:
    queue = make()
    queue.reconcile(Runs().look, set())
    queue.prepare()
    return queue


def all_of(queue: TrialQueue, most: int = TRIALS) -> list[Assignment]:
    """Assignments until there are so many: a search asks in the background."""
    assignments: list[Assignment] = []
    while len(assignments) < most and queue.busy():
        assignments += queue.take(most - len(assignments), lambda cell: 0)
    return assignments


@every_queue
def test_it_hands_out_every_trial_once(make: Make, home: Path) -> None:
    queue = ready(make)
    assert queue.trials == queue.missing == TRIALS
    assert queue.epochs == 2
    assignments = all_of(queue)
    assert len({a.cell.spec.id for a in assignments}) == len({a.number for a in assignments}) == TRIALS
    assert all(a.attempt == 1 and not a.run for a in assignments)
    assert queue.take(TRIALS, lambda cell: 0) == []


@every_queue
def test_no_more_are_taken_than_asked_for_nor_unlike_ones(make: Make, home: Path) -> None:
    queue = ready(make)
    assert len(all_of(queue, 2)) == 2
    apart = all_of(queue, 1)
    assert len(apart) == 1
    while queue.busy() and not (rest := queue.take(TRIALS, lambda cell: cell.spec.id)):
        pass
    assert len(rest) == 1


@every_queue
def test_what_is_complete_is_over(make: Make, home: Path) -> None:
    queue, runs = ready(make), Runs()
    for assignment in all_of(queue):
        begun = runs.begin(queue, assignment)
        runs.status[begun.run] = "FINISHED"
        outcome = queue.complete(begun, SCORES)
        assert (outcome.counted, outcome.retried, outcome.skipped) == (True, False, 0)
    queue.busy()
    assert queue.missing == 0
    assert queue.runs() == set(runs.status)
    assert queue.live_runs() == set()


@every_queue
def test_a_trial_that_its_worker_lost_is_tried_again_and_a_final_failure_is_not(make: Make, home: Path) -> None:
    queue, runs = ready(make), Runs()
    first, *others = all_of(queue)
    assert queue.fail(runs.begin(queue, first), "its worker died", final=False).retried
    (again,) = queue.take(TRIALS, lambda cell: 0)
    assert (again.cell.spec.id, again.attempt) == (first.cell.spec.id, 2)
    assert not queue.fail(runs.begin(queue, again), "loss not finite", final=True).retried
    for other in others:
        queue.complete(runs.begin(queue, other), SCORES)
    queue.busy()
    assert queue.missing == 0


@every_queue
def test_what_is_released_waits_and_what_had_finished_counts(make: Make, home: Path) -> None:
    queue, runs = ready(make), Runs()
    done, *cut_off = [runs.begin(queue, a) for a in all_of(queue)]
    runs.status[done.run] = "FINISHED"
    queue.release(runs.look)
    again = make()
    again.reconcile(runs.look, runs.finished)
    again.prepare()
    left = all_of(again, TRIALS - 1)
    assert {a.cell.spec.id for a in left} == {a.cell.spec.id for a in cut_off}
    for assignment in left:
        again.complete(runs.begin(again, assignment), SCORES)
    again.busy()
    assert again.missing == 0


@every_queue
def test_a_dead_driver_s_trials_are_repaired_once(make: Make, home: Path) -> None:
    queue, runs = ready(make), Runs()
    done, _, *_ = [runs.begin(queue, a) for a in all_of(queue)]
    runs.status[done.run] = "FINISHED"
    assert queue.live_runs() == set(runs.status)
    again = make()
    repairs = again.reconcile(runs.look, runs.finished)
    assert (repairs.adopted, repairs.lost) == (1, TRIALS - 1)
    assert again.reconcile(runs.look, runs.finished) == (0, 0)


def test_only_a_search_with_a_pruner_ends_trials_early(home: Path) -> None:
    assert of_ablation().pruning is None
    assert of_search().pruning is None
    assert of_pruned_search().pruning is not None


def test_the_number_of_a_start_goes_on_when_mended_code_tries_again(home: Path) -> None:
    queue, runs = ready(of_ablation), Runs()
    first, *_ = all_of(queue)
    assert queue.fail(runs.begin(queue, first), "its worker died", final=False).retried
    (again,) = queue.take(TRIALS, lambda cell: 0)
    queue.fail(runs.begin(queue, again), "loss not finite", final=True)
    queue.release(runs.look)
    study = Ablation(base=BASE, arms={"bce": {}}, budgets={"default": Budget(epochs=2, seeds=range(1))})
    store = TrialStore("contract.default", ["minimize"], database(), code="mended")
    mended = AblationQueue(store, study.cells("default"), lambda metrics: metrics["validation/squared_error"])
    mended.reconcile(runs.look, set())
    mended.prepare()
    assert [a.attempt for a in mended.take(TRIALS, lambda cell: 0)] == [3]
