"""The place of a pruned trial is free again, even when no other trial is in training to be heard of."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers import driver_of
from memory_tracker import MemoryTracker
from optuna.trial import TrialState

from harness.executors import Processes
from harness.queue import SearchQueue, TrialStore, database
from harness.spec import TrialSpec
from harness.study import Pruner, Real, Search, SearchBudget

TRIALS = 8
WAIT_S = 120  # a driver that waits for ever is ended


@pytest.fixture
def alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimeoutError(f"still waiting after {WAIT_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(WAIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm", "fixed_code")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_search_goes_on_when_all_that_trains_is_pruned(home: Path, workers: int) -> None:
    search = Search(
        base=TrialSpec(dataset="digits", network="mlp", hidden=(8,)),
        space={"learning_rate": Real(1e-6, 1e-1, log=True)},
        objectives=("elbo/validation",),
        sampler="random",
        pruner=Pruner(name="asha", first=1, factor=4),
        budgets={"default": SearchBudget(trials=TRIALS, epochs=3)},
    )
    queue = SearchQueue(TrialStore("pruned", ["maximize"], database()), search, "default", workers)
    driver = driver_of(queue, MemoryTracker(), home / "scratch", lambda where: Processes(["cpu"] * workers, where))
    driver.headline = "elbo/validation"
    queue.prepare()
    driver.run()
    assert queue.missing == 0
    states = [t.state for t in queue.store.trials()]
    assert len(states) == TRIALS
    assert states.count(TrialState.PRUNED) >= 2
    assert not driver.ending
