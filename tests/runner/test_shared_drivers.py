"""Several drivers on one study, on a real PostgreSQL: every cell counts once, whoever is killed or stopped."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow_runs import trial_runs
from optuna.trial import FrozenTrial
from servers import Postgres
from shared_driver import PLAN

from harness.queue import TrialStore, database
from harness.tracking import MlflowTracker

TESTS = Path(__file__).parents[1]
GRACE_S = 6


@pytest.fixture
def stores(postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A trial store and a tracking store on the server, ready; the URI of the former."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.uri(postgres.database()))
    monkeypatch.setenv("HARNESS_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("HARNESS_GRACE_S", str(GRACE_S))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    store = postgres.uri(postgres.database())
    MlflowTracker("shared", "default", "")
    return database(store)


@contextmanager
def drivers(storage: str, folder: Path, count: int) -> Iterator[list[subprocess.Popen]]:
    """As many drivers, each of its own home, all at work; none is left at the end."""
    started = []
    try:
        for i in range(count):
            home = folder / f"home{i}"
            program = [sys.executable, str(TESTS / "helpers" / "shared_driver.py"), storage, str(home / "scratch")]
            out = (folder / f"said{i}").open("w")
            environment = {**os.environ, "HARNESS_HOME": str(home)}
            started.append(subprocess.Popen(program, env=environment, stdout=out, stderr=subprocess.STDOUT))
        until = time.monotonic() + 120
        while not all(trains(folder, i) for i in range(count)):
            assert time.monotonic() < until, [said(folder, i) for i in range(count)]
            time.sleep(0.05)
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def said(folder: Path, driver: int) -> str:
    return (folder / f"said{driver}").read_text()


def trains(folder: Path, driver: int) -> bool:
    """Whether the driver has begun a trial and not ended it yet."""
    return said(folder, driver).rpartition("\n")[0].rpartition("\n")[2].startswith("training")


def finish(process: subprocess.Popen, folder: Path, driver: int) -> None:
    assert process.wait(timeout=240) == 0, said(folder, driver)
    assert "Traceback" not in said(folder, driver)


def trials(storage: str) -> list[FrozenTrial]:
    return TrialStore("shared.default", ["minimize"], storage).trials()


def assert_every_cell_counts_once(storage: str) -> None:
    """12 of 12, none invented, and one FINISHED run for each."""
    found = trials(storage)
    assert Counter(t.state.name for t in found) == {"COMPLETE": 12}
    assert Counter(t.user_attrs["cell"] for t in found) == Counter(c.spec.id for c in PLAN.cells("default"))
    runs = trial_runs(MlflowTracker("shared", "default", ""))
    finished = Counter(r.info.run_id for r in runs if r.info.status == "FINISHED")
    assert finished == Counter(t.user_attrs["run"] for t in found)
    assert "RUNNING" not in {r.info.status for r in runs}


@pytest.mark.slow
def test_three_drivers_of_which_one_is_killed(stores: str, tmp_path: Path) -> None:
    with drivers(stores, tmp_path, 3) as (victim, *others):
        victim.kill()
        for i, process in enumerate(others, 1):
            finish(process, tmp_path, i)
    assert_every_cell_counts_once(stores)
    owners = {t.user_attrs["owner"] for t in trials(stores)}
    assert len(owners) == 2  # both survivors had work, and what the victim held was taken up


@pytest.mark.slow
def test_a_driver_that_slept_too_long_finds_its_trial_taken(stores: str, tmp_path: Path) -> None:
    with drivers(stores, tmp_path, 2) as (sleeper, other):
        sleeper.send_signal(signal.SIGSTOP)
        held = [t for t in trials(stores) if t.state.name == "RUNNING"]
        finish(other, tmp_path, 1)  # it has taken the sleeper's trial for lost, and done it
        sleeper.send_signal(signal.SIGCONT)
        finish(sleeper, tmp_path, 0)
    assert held
    assert_every_cell_counts_once(stores)
    told = [line for line in said(tmp_path, 0).splitlines() if "its driver was stopped for so long" in line]
    assert len(told) == 1, said(tmp_path, 0)
