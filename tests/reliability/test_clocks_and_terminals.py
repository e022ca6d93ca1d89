"""Clocks that jump, terminals that are closed, and users without a home folder."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.runner.signals import CODES, Stopped, Stops
from harness.runner.terminal import Lasting
from harness.spec import TrialSpec
from harness.tracking import MlflowTracker
from harness.training.children import no_interrupts

FACTS = {"ledger": "a_study.default", "dataset.digest": "0" * 64}
YEAR_S = 365 * 24 * 3600.0


@pytest.mark.parametrize(
    "jump",
    [
        pytest.param(-YEAR_S, id="R6-row44-set-back"),
        pytest.param(YEAR_S, id="row44-forward-a-year"),
        pytest.param(0.0, id="row44-no-jump"),
    ],
)
def test_a_run_that_a_dead_driver_left_is_closed_whatever_the_clock_does(
    jump: float, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, now = MlflowTracker("a_study", "default", ""), time.time
    orphan, live = (tracker.begin(TrialSpec(seed=i), "bce", i, 1, FACTS) for i in range(2))
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    assert tracker.close_orphans("a_study.default", {live}, 0) == 1
    assert tracker.look(live)[0] == "RUNNING"
    closed = tracker.client.get_run(orphan).info
    assert closed.status == "KILLED"
    assert closed.end_time >= closed.start_time


def test_row44_a_young_run_of_a_shared_store_is_left_to_its_driver(mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, now = MlflowTracker("a_study", "default", ""), time.time
    tracker.begin(TrialSpec(), "bce", 0, 1, FACTS)
    for jump, closed in ((-30, 0), (30, 0), (-90, 1)):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda jump=jump: now() + jump)
            assert tracker.close_orphans("a_study.default", set(), 60) == closed


@pytest.mark.parametrize("number", [pytest.param(s, id=f"R8-row45-{s.name}") for s in CODES])
def test_c7_each_signal_stops_in_order_and_a_second_one_at_once(number: signal.Signals) -> None:
    stops = Stops()

    def wait() -> None:
        with stops.listening(), stops.allowed():
            signal.raise_signal(number)

    def noted() -> list[object]:
        with stops.listening():
            signal.raise_signal(number)
            return [signal.getsignal(s) for s in CODES]

    with pytest.raises(Stopped) as stopped:
        wait()
    assert stopped.value.code == 128 + number
    assert noted() == [signal.SIG_DFL] * len(CODES)


def test_r8_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stops = Stops()
    try:
        with stops.listening(), stops.allowed():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stops.code == 0


def test_r8_the_end_of_a_terminal_does_not_reach_workers() -> None:
    with no_interrupts():
        asked = "import signal; print(*sorted(s.name for s in signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
        said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["SIGHUP", "SIGINT"]


class Closed(io.StringIO):
    """A stream that nobody can read any more."""

    def __init__(self, number: int, file: int) -> None:
        super().__init__()
        self.number, self.file = number, file

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))

    def fileno(self) -> int:
        return self.file


@pytest.mark.parametrize("number", [pytest.param(n, id=f"R8-{errno.errorcode[n]}") for n in (errno.EPIPE, errno.EIO)])
def test_what_nobody_can_read_is_dropped(number: int, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        stream = Lasting(Closed(number, file.fileno()))
        assert stream.write("epoch 3") == 7
        stream.flush()
        assert os.readlink(f"/proc/self/fd/{file.fileno()}") == os.devnull


def test_r8_other_faults_of_a_stream_are_told(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file, pytest.raises(OSError, match="No space"):
        Lasting(Closed(errno.ENOSPC, file.fileno())).write("epoch 3")


@pytest.mark.slow
def test_r10_mlflow_without_a_home_folder() -> None:
    """As a user whom the system does not list, without HOME."""
    program = (
        "import os, pwd\ndef nobody(uid): raise KeyError(uid)\npwd.getpwuid = nobody; os.environ.pop('HOME', None)\n"
        "from harness.tracking import library; library.mlflow(); print(os.environ['HOME'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_dir()
