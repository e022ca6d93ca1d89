"""A study that people start, kill, change and damage in any order; after each recovery its books are checked.

    python tests/helpers/state_machine.py --seconds 1800 --seed 0

Prints how many steps were done and how often all invariants held; ends with 1 at the first sequence that breaks one, which
hypothesis makes as short as it can. The report is left out: drawing takes most of a tiny study's time, and tests/report has it.
"""

import argparse
import errno
import io
import itertools
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from homes import home_at
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from harness import cli, paths, queue, report
from harness.executors import Saving, local, train
from harness.queue import AblationQueue, TrialStore
from harness.tracking import MlflowTracker, ensure_store
from harness.training.checkpoints import Checkpoints

STUDY = '''"""Is it so?"""
from harness.spec import TrialSpec
from harness.study import Ablation, Budget

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=600, evaluation="quick"),
    arms={arms},
    budgets={{"default": Budget(epochs=2, seeds=range({seeds}), evaluation="quick")}},
)
'''
ARMS = {"bce": {}, "mse": {"likelihood": "mse"}, "z=4": {"latent": 4}}
# Where a start may end: a method that a driver calls, and whether it ends before or after the call.
POINTS: dict[str, tuple[type, str]] = {
    "a trial is claimed": (TrialStore, "claim"),
    "a run begins": (MlflowTracker, "begin"),
    "a run is noted": (AblationQueue, "note_run"),
    "an epoch is logged": (MlflowTracker, "log"),
    "a checkpoint is saved": (Checkpoints, "save"),
    "a run finishes": (MlflowTracker, "finish"),
    "a result is told": (AblationQueue, "complete"),
    "a plan is kept": (MlflowTracker, "keep_plan"),
    "a study is reopened": (MlflowTracker, "reopen_study"),
}
COUNTS: Counter[str] = Counter()  # of this process: steps, recoveries


class Killed(BaseException):
    """The process ends here; nothing catches it."""


def kill() -> None:
    """End the process, as far as one can within a process that goes on."""
    raise Killed


def stop() -> None:
    """Ask the process to stop."""
    os.kill(os.getpid(), signal.SIGTERM)


def fill() -> None:
    """Meet a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


ENDS: dict[str, tuple[Callable[[], None], set[int]]] = {"killed": (kill, {-1}), "stopped": (stop, {143}), "full": (fill, {4})}


@cache
def empty_stores() -> Path:
    """A home with both databases and nothing in them, built once: it takes seconds."""
    folder = Path(tempfile.mkdtemp(prefix="stores-"))
    with home_at(folder):
        ensure_store()
        queue.database()
    return folder


@contextmanager
def ending(point: str, calls: int, *, after: bool, how: Callable[[], None]) -> Iterator[None]:
    """In this block, end whatever calls a point for the n-th time, before or after the call."""
    owner, name = POINTS[point]
    method, left = getattr(owner, name), itertools.count(1)

    def called(*arguments: Any, **named: Any) -> Any:
        now = next(left) == calls
        if now and not after:
            how()
        result = method(*arguments, **named)
        if now and after:
            how()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, called)
        yield


class Studies(RuleBasedStateMachine):
    """One study in one home."""

    @initialize()
    def begin(self) -> None:
        """An empty home with its stores, and a study of two cells."""
        self.folder = Path(tempfile.mkdtemp(prefix="states-"))
        self.home = shutil.copytree(empty_stores(), self.folder / "home")
        self.lost = 0  # how often MLflow's database was: this process holds open what it has read, by its path
        self.kept: dict[str, str] = {}  # the run that counts of each cell that was ever on record
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(local, "train", partial(train, saving=Saving(every_s=0.0, share=float("inf"))))
        self.patch.setattr(report, "publish", lambda *_, **__: None)
        self.patch.setattr(report, "show", lambda *_, **__: None)
        self.write(["bce", "mse"], 1)

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "patch"):
            self.patch.undo()
            shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, arms: list[str], seeds: int) -> None:
        """Write the study's file."""
        self.arms, self.seeds = arms, seeds
        (self.folder / "small.py").write_text(STUDY.format(arms={a: ARMS[a] for a in arms}, seeds=seeds), encoding="utf-8")

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run `harness`; a process that was killed has the code -1."""
        said = io.StringIO()
        with home_at(self.home), pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
            patch.setattr(paths, "studies", lambda: self.folder)
            try:
                code = cli.main(list(arguments))
            except Killed:
                code = -1
        assert "Traceback" not in said.getvalue(), said.getvalue()
        return code, said.getvalue()

    def start(self) -> tuple[int, str]:
        """`make study`."""
        return self.command("study", "small", "--device", "cpu", "--executor", "local")

    def rows(self, database: str, question: str) -> list[tuple[Any, ...]]:
        """What a database answers."""
        with closing(sqlite3.connect(self.home / "mlruns" / database)) as connection:
            return connection.execute(question).fetchall()

    def counted(self) -> list[tuple[str, str]]:
        """The cell and the run of every trial that counts."""
        question = (
            "SELECT c.value_json, r.value_json FROM trials t JOIN trial_user_attributes c USING (trial_id) "
            "JOIN trial_user_attributes r USING (trial_id) WHERE t.state = 'COMPLETE' AND c.key = 'cell' AND r.key = 'run'"
        )
        return [(cell.strip('"'), run.strip('"')) for cell, run in self.rows("optuna.db", question)]

    def runs(self, status: str) -> set[str]:
        """The trials' runs of this status."""
        question = (
            "SELECT run_uuid FROM runs JOIN tags USING (run_uuid) WHERE key = 'kind' AND value = 'trial' AND status = "
            f"'{status}' AND lifecycle_stage = 'active'"
        )
        return {run for (run,) in self.rows("mlflow.db", question)}

    @rule()
    def finish(self) -> None:
        """Start it and let it end by itself: all is done, once, and as it was kept."""
        code, said = self.start()
        assert code == 0, said
        counted = self.counted()
        assert len(dict(counted)) == len(counted), "a cell counts twice"
        assert len(counted) >= len(self.arms) * self.seeds
        assert {run for _, run in counted} == self.runs("FINISHED"), "the stores differ"
        assert not self.runs("RUNNING")
        assert "nothing to do" in self.start()[1]
        code, said = self.command("verify", "small")
        assert "no report was written yet" in said, said  # it is left out here, and is all that may be missing
        assert "1 faults in" in said, said
        COUNTS["recoveries"] += 1

    @rule(point=st.sampled_from(list(POINTS)), calls=st.integers(1, 3), after=st.booleans(), how=st.sampled_from(list(ENDS)))
    def cut_off(self, point: str, calls: int, after: bool, how: str) -> None:
        """Start it and end it somewhere, unless it ends before."""
        act, codes = ENDS[how]
        with ending(point, calls, after=after, how=act):
            code, said = self.start()
        assert code in codes | {0}, said

    @rule(arms=st.lists(st.sampled_from(list(ARMS)), min_size=1, max_size=3, unique=True), seeds=st.integers(1, 2))
    def change(self, arms: list[str], seeds: int) -> None:
        """Change the plan."""
        self.write(arms, seeds)

    @rule(data=st.data(), how=st.sampled_from(["delete", "truncate", "flip", "empty"]))
    def damage_checkpoint(self, data: st.DataObject, how: str) -> None:
        """Delete a checkpoint, or change what is in it."""
        files = sorted(f for f in (self.home / "mlruns" / "checkpoints").rglob("*.*") if f.is_file())
        if not files:
            return
        file = data.draw(st.sampled_from(files))
        content = bytearray(file.read_bytes())
        if how == "delete":
            file.unlink()
            return
        if how == "flip" and content:
            content[len(content) // 2] ^= 255
        file.write_bytes({"truncate": content[: len(content) // 2], "empty": b""}.get(how, content))

    @rule(name=st.sampled_from(["scratch", "reports", "checked", "locks", "checkpoints"]))
    def delete_folder(self, name: str) -> None:
        """Delete a folder that another start makes again."""
        shutil.rmtree(self.home / "mlruns" / name, ignore_errors=True)

    @precondition(lambda self: self.kept)
    @rule(data=st.data(), file=st.sampled_from(["state_dict.pt", "manifest.json"]))
    def lose_artifact(self, data: st.DataObject, file: str) -> None:
        """Take a file of a result away: `verify` names it, until it is back."""
        run = data.draw(st.sampled_from(sorted(self.kept.values())))
        (path,) = (self.home / "mlruns" / "artifacts").glob(f"*/{run}/artifacts/{file}")
        aside = path.rename(self.folder / "aside")
        code, said = self.command("verify", "small")
        aside.rename(path)
        assert code not in (0, 70), said
        assert file in said, said

    @rule(name=st.sampled_from(["home", "my home", "100%20", "höme #1?", "a;b'c"]))
    def move(self, name: str) -> None:
        """Move the home: what it holds is found where it is now."""
        home = self.folder / f"{name}{self.lost or ''}"
        if home != self.home:
            self.home = self.home.rename(home)

    @precondition(lambda self: self.kept)
    @rule()
    def lose_trial_store(self) -> None:
        """Lose the trials' database: the next start reads back from MLflow what counted."""
        (self.home / "mlruns" / "optuna.db").unlink()
        self.finish()

    @precondition(lambda self: self.kept)
    @rule()
    def lose_tracking_store(self) -> None:
        """Lose MLflow's database: the next start makes it again from the trials and the files of their runs."""
        self.lost += 1
        self.move(name="home")
        (self.home / "mlruns" / "mlflow.db").unlink()
        self.finish()

    @rule()
    def start_a_second(self) -> None:
        """Start it while another driver runs it: refused in words, and nothing changes."""
        before = self.counted()
        with home_at(self.home), queue.driver_lock("small.default"):
            code, said = self.start()
        assert code == 4, said
        assert "another driver is running" in said
        assert self.counted() == before

    @invariant()
    def nothing_is_lost(self) -> None:
        """What counted once counts for ever, with the same run."""
        if not hasattr(self, "home"):
            return
        COUNTS["steps"] += 1
        now = dict(self.counted())
        assert self.kept.items() <= now.items(), "a result on record is lost"
        self.kept = now


def main() -> None:
    """Take steps for as long as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    until, held, first = time.monotonic() + chosen.seconds, True, chosen.seed
    how = settings(
        max_examples=5,
        stateful_step_count=20,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
    )
    for seed in itertools.count(first):
        if time.monotonic() >= until or not held:
            break
        try:
            run_state_machine_as_test(seeded(seed)(Studies), settings=how)
        except BaseException as fault:  # whatever it is, the steps that were done are told
            held = False
            print(f"seed {seed}: {type(fault).__name__}: {fault}")
            print("\n".join(getattr(fault, "__notes__", [])))
    words = "every invariant held" if held else "an invariant was broken"
    print(f"{COUNTS['steps']} steps, {COUNTS['recoveries']} recoveries, {words}")
    sys.exit(not held)


if __name__ == "__main__":
    main()
