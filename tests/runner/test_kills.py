"""Whatever ends a driver, and wherever: every result counts once, nothing acknowledged is lost, the same results in the end."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from mlflow_runs import trial_runs
from optuna.trial import TrialState

from harness import paths
from harness.queue import AblationQueue, SearchQueue, TrialStore, database
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Cell, Real, Search, SearchBudget
from harness.tracking import MlflowTracker

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_10_kills_across_an_ablation_and_a_search_change_nothing() -> None:
    program = [sys.executable, str(TESTS / "helpers" / "chaos.py"), "--kills", "10", "--seed", "7"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 kills, seed 7: nothing wrong" in done.stdout


# -------------------------------------------------------------------------------- orphans

PLAN = Ablation(
    base=TrialSpec(dataset="digits"),
    arms={"bce": {}, "mse": {"likelihood": "mse"}, "laplace": {"likelihood": "laplace"}, "z=4": {"latent": 4}},
    budgets={"default": Budget(epochs=1, seeds=range(10))},
)
ORIGIN = {"dataset.digest": "d" * 64, "device": "a CPU", "ledger": "a_study.default"}


def queue_over(cells: Sequence[Cell] = PLAN.cells("default")) -> AblationQueue:
    return AblationQueue(TrialStore("a_study.default", ["minimize"], database()), cells, lambda m: m["validation/squared_error"])


def books(tracker: MlflowTracker, store: TrialStore) -> tuple:
    """Everything that both databases say of the trials."""
    runs = {r.info.run_id: (r.info.status, r.info.end_time, dict(r.data.tags)) for r in trial_runs(tracker)}
    trials = [(t.number, t.state, t.values, t.user_attrs) for t in store.trials()]
    return runs, trials


def test_40_orphans_are_repaired_and_a_second_call_changes_nothing(mlflow_store: Path) -> None:
    """Eight of each kind: killed before and after its run began, before and after the result, and failed by something else."""
    tracker, queue = MlflowTracker("a_study", "default", ""), queue_over()
    cells = PLAN.cells("default")
    queue.prepare()
    assignments = queue.take(40, lambda cell: 0)
    kinds = ["no run", "a run", "a run that nobody named", "a finished run", "failed"]
    for i, assignment in enumerate(assignments):
        kind = kinds[i % 5]
        run = (
            tracker.begin(assignment.cell.spec, assignment.cell.arm, assignment.number, 1, ORIGIN)
            if kind not in ("no run", "failed")
            else ""
        )
        if run and kind != "a run that nobody named":
            queue.note_run(assignment, run)
        if kind == "a finished run":
            tracker.log(run, 1, {"validation/squared_error": float(i)})
            tracker.client.set_terminated(run, "FINISHED")
        if kind == "failed":
            queue.store.study.tell(assignment.number, state=TrialState.FAIL)

    def repair() -> tuple[AblationQueue, int, int]:
        again = queue_over()
        finished = tracker.finished_runs("a_study.default")
        repairs = again.reconcile(tracker.look, finished)
        closed = tracker.close_orphans("a_study.default", set(), 0)
        again.prepare()
        return again, sum(repairs), closed

    repaired, trials, runs = repair()
    assert (trials, runs) == (32, 16)
    states = Counter(t.state.name for t in repaired.store.trials())
    assert states == {"COMPLETE": 8, "WAITING": 32, "FAIL": 8}
    assert len(repaired.done()) == 8
    waiting = [t.user_attrs["cell"] for t in repaired.store.trials(TrialState.WAITING)]
    assert Counter([*waiting, *repaired.done()]) == Counter(c.spec.id for c in cells)
    statuses = Counter(r.info.status for r in trial_runs(tracker))
    assert statuses == {"KILLED": 16, "FINISHED": 8}
    before = books(tracker, repaired.store)
    again, trials, runs = repair()
    assert (trials, runs) == (0, 0)
    assert books(tracker, again.store) == before


def test_a_search_trial_that_something_else_failed_is_asked_for_again_once() -> None:
    search = Search(
        base=TrialSpec(dataset="digits"),
        space={"learning_rate": Real(1e-4, 1e-1, log=True)},
        objectives=("elbo/validation",),
        sampler="random",
        budgets={"default": SearchBudget(trials=4, epochs=1)},
    )

    def start() -> SearchQueue:
        queue = SearchQueue(TrialStore("a_search", ["maximize"], database()), search, "default", 2)
        queue.reconcile(lambda run: ("", {}), set())
        return queue

    queue = start()
    queue.prepare()
    assert queue.asking is not None
    queue.asking.result()
    (assignment, *_) = queue.take(2, lambda cell: 0)
    queue.store.study.tell(assignment.number, state=TrialState.FAIL)
    for _ in range(2):
        queue = start()
        failed, again = queue.store.trial(assignment.number), queue.store.trials(TrialState.WAITING)
        mine = [t for t in again if t.user_attrs.get("again") == assignment.number]
        assert [t.params for t in mine] == [failed.params]
    assert assignment.number not in [a.number for a in queue.history()]


def test_a_run_that_is_gone_does_not_count(mlflow_store: Path) -> None:
    tracker, queue = MlflowTracker("a_study", "default", ""), queue_over(PLAN.cells("default")[:1])
    queue.prepare()
    (assignment,) = queue.take(1, lambda cell: 0)
    run = tracker.begin(assignment.cell.spec, "bce", assignment.number, 1, ORIGIN)
    queue.note_run(assignment, run)
    queue.store.complete(assignment.number, [1.0])
    tracker.client.delete_run(run)
    again = queue_over(PLAN.cells("default")[:1])
    again.reconcile(tracker.look, tracker.finished_runs("a_study.default"))
    assert again.done() == {}
    again.prepare()
    assert [t.user_attrs["attempt"] for t in again.store.trials(TrialState.WAITING)] == [1]


# -------------------------------------------------------------------------------- signals

STUDY = '''"""Is it so?"""
from harness.spec import TrialSpec
from harness.study import Ablation, Budget

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(64,), batch_size=64),
    arms={"bce": {}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=400, seeds=range(2))},
    objective="validation/squared_error",
)
'''


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_keeps_the_work_and_ends_in_time(number: int, code: int, tmp_path: Path, home: Path, mlflow_store: Path) -> None:
    (tmp_path / "long.py").write_text(STUDY)
    said = tmp_path / "said"
    with said.open("w") as out:
        program = [
            sys.executable,
            "-c",
            "import pathlib, sys; from harness import cli, paths\n"
            "folder = pathlib.Path(sys.argv.pop(1)); paths.studies = lambda: folder; sys.exit(cli.main())",
            str(tmp_path),
            "study",
            "long",
            "--device",
            "cpu",
        ]
        process = subprocess.Popen(program, stdout=out, stderr=subprocess.STDOUT, text=True)
    try:
        until = time.monotonic() + 90
        store = home / "mlruns" / "optuna.db"
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.5)
            if store.exists() and max(steps_on_record(), default=0) >= 3:
                break
        else:
            pytest.fail(said.read_text())
        process.send_signal(number)
        started = time.monotonic()
        assert process.wait(timeout=30) == code, said.read_text()
        assert time.monotonic() - started <= 10
    finally:
        process.kill()
    lines = said.read_text()
    assert "the same command goes on where it left off" in lines
    assert "Traceback" not in lines
    kept = list((paths.mlruns() / "checkpoints" / "cpu" / "long.default").glob("*/*.json"))
    assert {json.loads(k.read_text())["spec"]["dataset"] for k in kept} == {"digits"}
    trials = TrialStore("long.default", ["minimize"], database()).trials()
    assert Counter(t.state.name for t in trials) == {"WAITING": 4}
    statuses = Counter(r.info.status for r in trial_runs(MlflowTracker("long", "default", "")))
    assert set(statuses) == {"KILLED"}


def steps_on_record() -> list[int]:
    with closing(sqlite3.connect(paths.mlruns() / "mlflow.db", timeout=60)) as connection:
        return [n for (n,) in connection.execute("SELECT MAX(step) FROM metrics") if n]
