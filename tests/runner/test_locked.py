"""A database that another process keeps locked costs time and nothing else."""

import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from mlflow_runs import trial_runs
from shared_driver import PLAN

from harness.queue import TrialStore, database
from harness.tracking import MlflowTracker

PROGRAM = Path(__file__).parents[1] / "helpers" / "shared_driver.py"
LOCKED_S = 7  # more than the 5 s that SQLite's driver for Python waits unless told otherwise
DRIVERS = 2


def rows(file: Path, question: str) -> list[tuple]:
    with closing(sqlite3.connect(file, timeout=60)) as connection:
        return connection.execute(question).fetchall()


def train_while_locked(home: Path, store: TrialStore) -> list[str]:
    """What each driver of a study has said, on whose databases first one and then the other was locked while all were at work."""
    out = [home / f"said{i}" for i in range(DRIVERS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HARNESS_HOME": str(home)}
    started = []
    try:
        for i in range(DRIVERS):  # no storage: both work on the files in this home
            program = [sys.executable, str(PROGRAM), "", str(home / f"scratch{i}")]
            with out[i].open("w") as said:
                started.append(subprocess.Popen(program, env=environment, stdout=said, stderr=subprocess.STDOUT))
        until = time.monotonic() + 120
        while not all("training" in o.read_text() for o in out):
            assert time.monotonic() < until, [o.read_text() for o in out]
            time.sleep(0.1)
        for locked in ("optuna.db", "mlflow.db"):
            with closing(sqlite3.connect(home / "mlruns" / locked, timeout=60, isolation_level=None)) as connection:
                connection.execute("BEGIN EXCLUSIVE")
                time.sleep(LOCKED_S)
                assert [p.poll() for p in started] == [None] * DRIVERS, [o.read_text() for o in out]
                connection.execute("ROLLBACK")
            assert not any("done" in o.read_text() for o in out)
            assert store.orphans() == []
        assert [p.wait(timeout=240) for p in started] == [0] * DRIVERS, [o.read_text() for o in out]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [o.read_text() for o in out]


@pytest.mark.slow
def test_each_database_locked_for_7_s_costs_time_and_nothing_else(home: Path, mlflow_store: Path) -> None:
    MlflowTracker("shared", "default", "")
    store = TrialStore("shared.default", ["minimize"], database(), shared=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # the drivers go by their home
        lines = train_while_locked(home, store)
    assert not [text for text in lines if "Traceback" in text], lines
    assert_nothing_but_time_was_lost(home, store)
    store.close()


def assert_nothing_but_time_was_lost(home: Path, store: TrialStore) -> None:
    """Every cell counts once, at the first attempt, by the driver that took it; every epoch is on record once."""
    trials = store.trials()
    cells = PLAN.cells("default")
    assert Counter(t.user_attrs["cell"] for t in trials) == Counter(c.spec.id for c in cells)
    assert {t.state.name for t in trials} == {"COMPLETE"}
    assert {t.user_attrs["attempt"] for t in trials} == {1}
    assert not [t.number for t in trials if "released" in t.user_attrs], "taken for dead"
    assert all(t.user_attrs["beats"] == t.user_attrs["owner"] for t in trials)
    assert len({t.user_attrs["owner"] for t in trials}) == DRIVERS
    runs = trial_runs(MlflowTracker("shared", "default", ""))
    assert {r.info.run_id: r.info.status for r in runs} == {t.user_attrs["run"]: "FINISHED" for t in trials}
    points = "SELECT run_uuid, COUNT(*), COUNT(DISTINCT step) FROM metrics WHERE key = 'elbo/train' GROUP BY 1"
    epochs = rows(home / "mlruns" / "mlflow.db", points)
    assert {(n, different) for _, n, different in epochs} == {(40, 40)}
    assert len(epochs) == len(cells)
