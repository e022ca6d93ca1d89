"""What follows the last trial is loaded while the last ones train: once, and as soon as a place is free."""

import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from drivers import PAIR, driver_of, queue_of
from memory_tracker import MemoryTracker

from harness.executors import Event, InProcess, Job, OutputDirs
from harness.runner.ahead import Ahead


class Two(InProcess):
    """Two places, whose jobs train one after the other."""

    def __init__(self, dirs: OutputDirs) -> None:
        super().__init__(dirs)
        self.waiting: deque[Job] = deque()

    def free(self) -> int:
        return 1 + super().free() - len(self.waiting)

    def submit(self, job: Job) -> None:
        if self.training is None:
            super().submit(job)
        else:
            self.waiting.append(job)

    def events(self) -> Iterator[Event]:
        yield from super().events()
        if self.waiting:
            super().submit(self.waiting.popleft())


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("fault", [None, ImportError("no such module")])
def test_it_is_begun_when_nothing_is_left_for_a_place_while_another_trains(fault: Exception | None, tmp_path: Path) -> None:
    tracker, seen = MemoryTracker(), []

    def work() -> None:
        statuses = [run["status"] for run in tracker.runs.values()]
        seen.append((threading.current_thread() is threading.main_thread(), len(statuses), "RUNNING" in statuses))
        if fault is not None:
            raise fault

    class Joined(Ahead):
        def start(self) -> None:
            super().start()
            self.join()  # so that what the work sees is what there was when it began

    queue = queue_of(PAIR)
    queue.prepare()
    driver_of(queue, tracker, tmp_path, Two, headline="validation/squared_error", ahead=Joined(work)).run()
    assert seen == [(False, 4, True)]
    assert queue.missing == 0


def test_it_need_not_be_begun() -> None:
    Ahead().join()
