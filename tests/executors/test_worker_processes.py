"""Worker processes are closed, killed and replaced with nothing lost, and an interrupt leaves nothing half done."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jobs import ALWAYS, LONG, SPEC, end_of

from harness import executors, provenance
from harness.errors import MachineError
from harness.executors import Epoch, Failed, Finished, Job, OutputDirs, Processes, Spares
from harness.executors.interrupts import INTERRUPTS, Interrupts, Stop
from harness.spec import TrialSpec
from harness.training.checkpoints import Checkpoints


@pytest.fixture
def pool(dirs: OutputDirs, fixed_code: None) -> Iterator[Processes]:
    with closing(Processes(["cpu"], dirs)) as found:
        yield found


def until_epoch(pool: Processes, epoch: int) -> list[Epoch]:
    found: list[Epoch] = []
    while not found or found[-1].epoch < epoch:
        for event in pool.events():
            assert isinstance(event, Epoch)
            found.append(event)
    return found


@pytest.mark.slow
def test_closing_in_an_epoch_keeps_the_state_before_it(pool: Processes, dirs: OutputDirs) -> None:
    pool.submit(Job((LONG,)))
    (process,) = (w.process for w in pool.workers)
    seen = until_epoch(pool, 2)
    time.sleep(0.2)
    pool.close(patience_s=60)  # the job itself would take minutes
    assert process.exitcode == -signal.SIGTERM  # by itself: it was not killed
    store = Checkpoints(dirs.checkpoints)
    found = store.newest(LONG)
    assert found >= 2
    rows = store.load(LONG, found)["history"]
    assert len(rows) == found
    assert rows[:2] == [e.row for e in seen]


@pytest.mark.slow
def test_a_worker_that_ends_is_replaced_and_its_trial_goes_on(pool: Processes, dirs: OutputDirs) -> None:
    pool.submit(Job((LONG,)))
    until_epoch(pool, 1)
    os.kill(pool.workers[0].process.pid or 0, signal.SIGTERM)  # by the system, say
    assert end_of(pool) == Failed(LONG.id, "its worker process ended (killed by SIGTERM)", final=False)
    start = Checkpoints(dirs.checkpoints).newest(LONG)
    assert start >= 1
    pool.submit(Job((LONG,), start=start))
    os.kill(pool.workers[0].process.pid or 0, signal.SIGINT)  # Ctrl-C, as early as can be: the driver's business
    assert [e.epoch for e in until_epoch(pool, start + 1)] == list(range(1, start + 2))
    os.kill(pool.workers[0].process.pid or 0, signal.SIGKILL)
    assert end_of(pool) == Failed(LONG.id, "its worker process ended (killed by SIGKILL)", final=False)


def test_an_idle_worker_serves_the_next_executor_and_writes_to_its_folders(tmp_path: Path, fixed_code: None) -> None:
    """A search's workers train its refit too: what they have imported, read and compiled is not to be done again."""
    first, second = (OutputDirs(tmp_path / name / "scratch", tmp_path / name / "checkpoints") for name in ("first", "second"))
    with closing(Spares()) as spares:
        found = []
        for dirs in (first, second):
            with closing(Processes(["cpu"], dirs, spares=spares)) as pool:
                found.append(pool.workers[0].process.pid)
                pool.submit(Job((SPEC,)))
                finished = end_of(pool)
                assert isinstance(finished, Finished)
                assert dirs.scratch in finished.files.parents
        (spare,) = spares.waiting
        assert found == [spare.process.pid] * 2
        spares.keep(other := spares.take("cuda:0"))
        assert other.process.pid != spare.process.pid  # for that has worked on another device


def test_a_busy_worker_ends_with_its_executor(dirs: OutputDirs, fixed_code: None) -> None:
    with closing(Spares()) as spares:
        with closing(Processes(["cpu"], dirs, spares=spares)) as pool:
            pool.submit(Job((LONG,)))
            until_epoch(pool, 1)
        assert spares.waiting == []


def test_a_worker_of_other_code_trains_nothing(dirs: OutputDirs, fixed_code: None) -> None:
    with closing(Processes(["cpu"], dirs, code="older")) as pool:
        pool.submit(Job((SPEC,)))
        with pytest.raises(MachineError, match=rf"older, now {re.escape(provenance.code())}\nstart it again"):
            end_of(pool)


DRIVER = """
import sys
from pathlib import Path
from harness.executors import Job, OutputDirs, Processes
from harness.spec import TrialSpec

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    pool = Processes(["cpu", "cpu"], OutputDirs(folder / "scratch", folder / "checkpoints"))
    pool.submit(Job((TrialSpec(dataset="digits", batch_size=1, epochs=200, evaluation="validation"),)))
    next(pool.events())
    print(*(w.process.pid for w in pool.workers), flush=True)
    while True:
        list(pool.events())
"""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_workers_end_with_their_driver(tmp_path: Path) -> None:
    """At once, in training or idle: a new driver's worker may train the same trial."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        workers = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(alive, workers))
    finally:
        driver.kill()
        driver.wait()
    until = time.monotonic() + 30  # their job would take minutes
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(alive, workers))


# -------------------------------------------------------------------------------- interrupts


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    """This process's, as in a worker; undone after the test."""
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    INTERRUPTS.listen()
    yield INTERRUPTS
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)
    INTERRUPTS.stop_requested = False


def test_an_interrupt_waits_for_what_must_be_finished(interrupts: Interrupts) -> None:
    done = []
    os.kill(os.getpid(), signal.SIGTERM)
    done.append("a file")
    with pytest.raises(Stop), interrupts.cutting_short():
        done.append("never")
    assert done == ["a file"]


def test_an_interrupt_cuts_short_at_once(interrupts: Interrupts) -> None:
    def work() -> None:
        with interrupts.cutting_short():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    started = time.monotonic()
    with pytest.raises(Stop):
        work()
    assert time.monotonic() - started < 30
    assert not interrupts.interruptible


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_that_is_lost_in_a_destructor_comes_again() -> None:
    interrupts = Interrupts(again_s=0.05)
    interrupts.listen()

    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)

    def work() -> None:
        with interrupts.cutting_short():
            Dying()
            assert interrupts.stop_requested
            time.sleep(60)

    started = time.monotonic()
    with pytest.raises(Stop):
        work()
    assert time.monotonic() - started < 30


@pytest.mark.usefixtures("interrupts")
def test_a_checkpoint_in_writing_is_finished(dirs: OutputDirs) -> None:
    class AskedMeanwhile(Checkpoints):
        def save(self, spec: TrialSpec, epoch: int, state: Mapping[str, Any]) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            super().save(spec, epoch, state)

    with pytest.raises(Stop):
        list(executors.train(Job((SPEC,)), "cpu", dirs.scratch, AskedMeanwhile(dirs.checkpoints), saving=ALWAYS))
    assert Checkpoints(dirs.checkpoints).newest(SPEC) == 1
