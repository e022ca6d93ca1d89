"""An ablation and a search whose driver is killed at random moments, again and again, until both are done; then books are checked.

    python tests/helpers/chaos.py --kills 200 --seed 0

The drivers are forked where everything is imported already. Each notes in a file what it was told is done (a row, a result), so
that what was acknowledged can be held against what is in the databases. Prints what came of it; ends with 1 if anything is wrong.
"""

import argparse
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import optuna
import torch
from cold_starts import fork, load_for
from rich.console import Console

from harness import data, queue
from harness.executors import Saving, local
from harness.runner.board import Board
from harness.runner.room import Setting
from harness.runner.session import Session
from harness.runner.study_store import StudyStore
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Pruner, Real, Search, SearchBudget, Whole
from harness.tracking import MlflowTracker, ensure_store

BASE = TrialSpec(dataset="digits", network="mlp", hidden=(32,), batch_size=512, evaluation="validation")
ABLATION = Ablation(
    base=BASE,
    arms={"bce": {}, "mse": {"likelihood": "mse"}, "z=4": {"latent": 4}},
    budgets={"default": Budget(epochs=5, seeds=range(3), evaluation="validation")},
)
SEARCH = Search(
    base=BASE,
    space={"learning_rate": Real(1e-4, 1e-1, log=True), "latent": Whole(2, 8)},
    objectives=("elbo/validation",),
    pruner=Pruner(name="median", first=1),
    sampler="tpe",
    budgets={"default": SearchBudget(trials=16, epochs=5)},
)
LONGEST = 0.4  # until a kill, at most: this share of the time that an undisturbed study takes
CLOCKS = ("perf/", "model/")  # scores that may differ between two runs of the same trial


@dataclass(frozen=True)
class Acknowledged:
    """What a driver was told is done, on disk before it goes on."""

    file: Path

    def note(self, *facts: Any) -> None:
        """One fact."""
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(facts) + "\n")

    def read(self) -> list[list]:
        """All whole lines."""
        if not self.file.exists():
            return []
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def use(home: Path) -> None:
    """Make a home folder this process's."""
    os.environ["HARNESS_HOME"] = str(home)
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow leaves there what it was told last


def make_stores(home: Path) -> None:
    """Build both stores, so that kills fall into the work; those that fall into the building are tests/stores'."""
    use(home)
    ensure_store()
    queue.database()


def drive(home: Path) -> None:
    """One start of the driver: the ablation, then the search."""
    use(home)
    acknowledged = Acknowledged(home / "acknowledged.jsonl")
    tracker = MlflowTracker("chaos", "default", "")
    log, finish = tracker.log, tracker.finish

    def noted_log(run: str, step: int, row: Mapping[str, float]) -> None:
        log(run, step, row)
        if "elbo/train" in row:
            acknowledged.note("row", run, step, row["elbo/train"])

    def noted_finish(run: str, *rest: Any) -> None:
        finish(run, *rest)
        acknowledged.note("finished", run)

    tracker.log, tracker.finish = noted_log, noted_finish  # type: ignore[method-assign]  # listened in on, in this process only
    digits = data.load_dataset("digits", say=lambda _: None)
    origin = {"device": "a CPU", "dataset.digest": digits.digest}
    # These trials take less than the five seconds between two checkpoints.
    local.train = partial(local.train, saving=Saving(every_s=0.0, share=float("inf")))  # in this process only
    session = Session(
        store=StudyStore("chaos", "default", tracker, ""),
        board=Board(Console(file=io.StringIO())),
        gather=lambda: Setting(data=digits, device=torch.device("cpu"), workers=["cpu"]),
        executor="local",
        origin=origin,
    )
    cells = ABLATION.cells("default")
    specs = [c.spec for c in cells]
    with session.store.ablation_queue(ABLATION, cells, "") as queue:
        session.train(queue, specs, lambda: session.plan(specs), "validation/squared_error")
    with session.store.search_queue(SEARCH, 3) as queue:
        session.train(queue, specs, lambda: session.plan(specs), "elbo/validation")


def kill_until_done(home: Path, kills: int, longest_s: float, draw: random.Random, say: Callable[[str], None]) -> int:
    """Start drivers and kill them until there were `kills` kills, then let one end by itself. Returns the kills that met one."""
    landed = 0
    while True:
        errors = home / "error"
        child = fork(lambda: drive(home), errors)
        wait = draw.uniform(0.05, longest_s) if landed < kills else float("inf")
        until = time.monotonic() + wait
        status = None
        while status is None and time.monotonic() < until:
            done, code = os.waitpid(child, os.WNOHANG)
            status = code if done else None
            time.sleep(0.01)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            landed += 1
            if landed % 20 == 0:
                say(f"{landed} kills")
        elif status:
            raise RuntimeError(errors.read_text(encoding="utf-8"))
        else:
            return landed


def trial_stores(home: Path) -> dict[str, list[optuna.trial.FrozenTrial]]:
    """All trials, by the name of their store."""
    use(home)
    storage = queue.database()
    return {name: optuna.load_study(study_name=name, storage=storage).trials for name in optuna.get_all_study_names(storage)}


def runs(home: Path) -> list[mlflow.entities.Run]:
    """Every trial's runs."""
    use(home)
    client = MlflowTracker("chaos", "default", "").client
    (experiment,) = client.search_experiments(filter_string="name = 'chaos'")
    return list(client.search_runs([experiment.experiment_id], "tags.kind = 'trial'", max_results=10_000))


def results(home: Path) -> dict[str, dict[str, float]]:
    """What counts of each trial, by spec: the metrics of its FINISHED run that no clock is in."""
    return {
        r.data.tags["cell"]: {k: v for k, v in r.data.metrics.items() if not k.startswith(CLOCKS)}
        for r in runs(home)
        if r.info.status == "FINISHED"
    }


def path(home: Path) -> list[tuple]:
    """What the search asked for, and what it was told."""
    (trials,) = (t for name, t in trial_stores(home).items() if name != "chaos.default")
    return [(t.number, t.state.name, t.params, t.values) for t in trials]


def faults(home: Path, calm: Path) -> list[str]:
    """What is wrong after the kills, held against an undisturbed home; empty when nothing is."""
    found = []
    for name in ("optuna.db", "mlflow.db"):
        with closing(sqlite3.connect(home / "mlruns" / name)) as connection:
            (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
            found += [f"{name}: {answer}"] * (answer != "ok")
    states = {name: Counter(t.state.name for t in trials) for name, trials in trial_stores(home).items()}
    if states != {name: Counter(t.state.name for t in trials) for name, trials in trial_stores(calm).items()}:
        found.append(f"states differ from an undisturbed study's: {states}")
    counted = [t for trials in trial_stores(home).values() for t in trials if t.state.name == "COMPLETE"]
    named = Counter(t.user_attrs.get("run") or t.user_attrs.get("run.0") for t in counted)
    finished = Counter(r.info.run_id for r in runs(home) if r.info.status == "FINISHED")
    if named != finished:
        found.append(f"{len(counted)} trials count, {finished.total()} runs are FINISHED, and they are not the same")
    cells = Counter(t.user_attrs["cell"] for t in counted if "cell" in t.user_attrs)
    if cells != Counter(c.spec.id for c in ABLATION.cells("default")):
        found.append(f"cells counted: {dict(cells)}")
    stale = [r.info.run_id for r in runs(home) if r.info.status == "RUNNING"]
    found += [f"{len(stale)} runs still say RUNNING"] * bool(stale)
    found += _lost(home) + _twice(home)
    if path(home) != path(calm):
        found.append("the search took another path")
    if results(home) != results(calm):
        found.append("results differ from an undisturbed study's")
    return found


def _lost(home: Path) -> list[str]:
    """Acknowledged rows and results that are not in the databases."""
    with closing(sqlite3.connect(home / "mlruns" / "mlflow.db")) as connection:
        rows = set(connection.execute("SELECT run_uuid, step, value FROM metrics WHERE key = 'elbo/train'"))
        finished = {run for (run,) in connection.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'")}
    facts = Acknowledged(home / "acknowledged.jsonl").read()
    lost = [f for f in facts if f[0] == "row" and tuple(f[1:]) not in rows]
    lost += [f for f in facts if f[0] == "finished" and f[1] not in finished]
    return [f"{len(lost)} acknowledged facts are lost, first {lost[0]}"] if lost else []


def _twice(home: Path) -> list[str]:
    """Points of curves that are there twice."""
    with closing(sqlite3.connect(home / "mlruns" / "mlflow.db")) as connection:
        query = "SELECT run_uuid, key, step, COUNT(*) FROM metrics GROUP BY run_uuid, key, step HAVING COUNT(*) > 1"
        twice = connection.execute(query).fetchall()
    return [f"{len(twice)} points are on record twice, first {twice[0]}"] if twice else []


def chaos(kills: int, seed: int, say: Callable[[str], None]) -> list[str]:
    """What is wrong after so many kills; empty when nothing is."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        calm, home, draw = Path(folder) / "calm", Path(folder) / "killed", random.Random(seed)
        found: list[str] = []
        done = 0
        calm.mkdir()
        load_for(lambda: make_stores(calm), calm)
        stores = shutil.copytree(calm, Path(folder) / "stores")
        began = time.monotonic()
        kill_until_done(calm, 0, 0.0, draw, say)
        longest_s = LONGEST * (time.monotonic() - began)
        while done < kills and not found:
            shutil.copytree(stores, home)
            landed = kill_until_done(home, min(kills - done, 40), longest_s, draw, say)
            found = faults(home, calm)
            counts = f"{len(runs(home))} runs begun, {len(results(home))} count"
            say(f"{landed} kills in one study: {counts}; {'; '.join(found) or 'nothing wrong'}")
            done += landed
            home = home.with_name(f"killed{done}")
        return found


def main() -> None:
    """Kill as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    started = time.monotonic()
    found = chaos(chosen.kills, chosen.seed, lambda line: print(line, flush=True))
    print(f"{chosen.kills} kills, seed {chosen.seed}: {'; '.join(found) or 'nothing wrong'}; {time.monotonic() - started:.0f} s")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
