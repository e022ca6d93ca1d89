"""A study whose driver is told to stop at random moments, again and again, until it is done; the books are checked each time.

    python tests/helpers/signals.py --each 10 --seed 0 --executor local

The drivers are forked where everything is imported already. Prints what came of it; ends with 1 if anything is wrong.
"""

import argparse
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import torch
from cold_starts import fork, load_for, use

from harness import cli, paths
from harness.runner import commands

STUDY = '''"""Is it so?"""
from harness.spec import TrialSpec
from harness.study import Ablation, Budget

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(32,), batch_size=256),
    arms={"bce": {}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=40, seeds=range(2))},
)
'''
CELLS = 4
LONGEST_S = 1.5  # until a stop, at most
IN_TIME_S = 10.0
CODES = {"SIGTERM": 143, "SIGINT": 130}


def drive(home: Path, executor: str) -> int:
    """`harness study`, as a program that has loaded what it needs."""
    os.environ["HARNESS_HOME"] = str(home)
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow leaves there what it was told last
    paths.studies = lambda: home  # its study lies in this home
    with (home / "said").open("a", buffering=1, encoding="utf-8") as sys.stdout, sys.stdout as sys.stderr:
        return cli.main(["study", "stopped", "--device", "cpu", "--executor", executor])


def rows(home: Path, database: str, question: str) -> list[tuple]:
    """What a database says; nothing where it is not there yet."""
    file = home / "mlruns" / database
    if not file.exists():
        return []
    with closing(sqlite3.connect(file, timeout=60)) as connection:
        return connection.execute(question).fetchall()


def running(home: Path) -> list[str]:
    """What still says that it is RUNNING."""
    trials = rows(home, "optuna.db", "SELECT number FROM trials WHERE state = 'RUNNING'")
    runs = rows(home, "mlflow.db", "SELECT name FROM runs WHERE status = 'RUNNING'")
    return [f"trial {number}" for (number,) in trials] + [name for (name,) in runs]


def miscounted(home: Path) -> list[str]:
    """What is wrong with the books of a study that is done: a cell that does not count once, or whose run does not."""
    states = Counter(state for (state,) in rows(home, "optuna.db", "SELECT state FROM trials"))
    cells = rows(home, "optuna.db", "SELECT value_json FROM trial_user_attributes WHERE key = 'cell'")
    named = rows(home, "optuna.db", "SELECT value_json FROM trial_user_attributes WHERE key = 'run'")
    finished = rows(
        home,
        "mlflow.db",
        "SELECT run_uuid FROM runs JOIN tags USING (run_uuid) WHERE status = 'FINISHED' AND key = 'kind' AND value = 'trial'",
    )
    found = [] if states == {"COMPLETE": CELLS} and len(set(cells)) == CELLS else [f"{dict(states)}, {len(set(cells))} cells"]
    if {run.strip('"') for (run,) in named} != {run for (run,) in finished} or len(finished) != CELLS:
        found.append(f"{len(finished)} runs are FINISHED, {len(set(named))} count")
    return found


def stop_until_done(home: Path, left: list[str], draw: random.Random, executor: str) -> tuple[float, list[str]]:
    """Take from the signals that are left each that met a driver. Returns the longest that one took to end, and what is wrong."""
    home.mkdir()
    (home / "stopped.py").write_text(STUDY, encoding="utf-8")
    longest = 0.0
    while True:
        child = fork(lambda: drive(home, executor), home / "error")
        until = time.monotonic() + draw.uniform(0.05, LONGEST_S) if left else float("inf")
        done = False
        while not done and time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.01)
        wanted = 0
        if not done:
            how = left.pop()
            os.kill(child, signal.Signals[how])
            sent = time.monotonic()
            _, status = os.waitpid(child, 0)
            wanted, longest = CODES[how], max(longest, time.monotonic() - sent)
        ended = os.waitstatus_to_exitcode(status)
        code = 128 - ended if ended < 0 else ended  # as a shell says it, of one that had not begun to listen
        found = [f"exit code {code} instead of {wanted}"] * (code != wanted)
        found += [f"ended after {longest:.1f} s"] * (longest > IN_TIME_S)
        said = "".join(f.read_text(encoding="utf-8") for f in (home / "said", home / "error") if f.exists())
        found += ["a traceback"] * ("Traceback" in said)
        found += [f"still RUNNING: {', '.join(still)}"] if (still := running(home)) else []
        if found:
            return longest, [*found, said[-2000:]]
        if done:
            return longest, miscounted(home)


def main() -> None:
    """Stop as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executor", default="local")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    assert commands  # loaded here, once
    draw, started, studies, longest, found = random.Random(chosen.seed), time.monotonic(), 0, 0.0, []
    left = draw.sample([*CODES] * chosen.each, len(CODES) * chosen.each)
    with tempfile.TemporaryDirectory(prefix="signals-") as folder:
        load_for(lambda: use({"home": folder, "tracking": "", "trials": ""}, "first"), Path(folder))
        while left and not found:
            took, found = stop_until_done(Path(folder) / str(studies), left, draw, chosen.executor)
            studies, longest = studies + 1, max(longest, took)
    said = f"{chosen.each} x {' and '.join(CODES)}, seed {chosen.seed}: {'; '.join(found) or 'nothing wrong'}"
    print(f"{said}; {studies} studies, the slowest end took {longest:.1f} s; {time.monotonic() - started:.0f} s")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
