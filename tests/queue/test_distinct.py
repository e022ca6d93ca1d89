"""Points for several workers at a time are different ones."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from drivers import driver_of
from memory_tracker import MemoryTracker
from optuna.trial import TrialState

from harness.executors import Event, Finished, InProcess, Job, OutputDirs
from harness.executors.training import train
from harness.queue import SearchQueue, TrialStore, database
from harness.spec import TrialSpec
from harness.study import OneOf, Real, Search, SearchBudget
from harness.training.checkpoints import Checkpoints

WORKERS, POINTS = 4, 24


class InTurn(InProcess):
    """Workers that are this process: their jobs train in turn, one event at a time."""

    def __init__(self, dirs: OutputDirs) -> None:
        super().__init__(dirs)
        self.jobs: list[Generator[Event]] = []

    def free(self) -> int:
        return WORKERS - len(self.jobs)

    def submit(self, job: Job) -> None:
        self.jobs.append(train(job, "cpu", self.dirs.scratch, Checkpoints(self.dirs.checkpoints)))

    def events(self) -> Iterator[Event]:
        for training in self.jobs.copy():
            event = next(training)
            if isinstance(event, Finished):  # of its one trial
                self.jobs.remove(training)
            yield event


@pytest.mark.slow
@pytest.mark.usefixtures("fixed_code")
@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_24_points_for_4_workers_are_24_different_ones(sampler: str, home: Path) -> None:
    search = Search(
        base=TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=600, evaluation="validation"),
        space={"learning_rate": Real(1e-4, 1e-1, log=True), "activation": OneOf(("elu", "relu"))},
        objectives=("elbo/validation",),
        sampler=sampler,
        budgets={"default": SearchBudget(trials=POINTS, epochs=1)},
    )
    queue = SearchQueue(TrialStore("distinct", ["maximize"], database()), search, "default", search.batch_of("default", WORKERS))
    driver = driver_of(queue, MemoryTracker(), home / "scratch", InTurn)
    driver.headline = "elbo/validation"
    queue.prepare()
    driver.run()
    trials = queue.store.trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * POINTS
    assert len({tuple(t.params.items()) for t in trials}) == POINTS
    assert len({a.spec.id for a in queue.history()}) == POINTS
    assert {t.user_attrs["of"] for t in trials} == {WORKERS}, "asked for four at a time"
