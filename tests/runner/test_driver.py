"""The loop of a study, killed where it hurts: whatever happens, one result per cell and no work done twice."""

import io
import os
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from drivers import ALONE, ORIGIN, driver_of, queue_of
from memory_tracker import MemoryTracker
from optuna.trial import TrialState

from harness import figures, paths, provenance, study
from harness.errors import MachineError
from harness.executors import Executor, Failed, InProcess, Job, OutputDirs, Processes, training
from harness.queue import ATTEMPTS, Assignment, Outcome, SearchQueue, TrialStore, database, driver_lock
from harness.spec import Result, TrialSpec
from harness.study import Ablation, Budget, Search, SearchBudget
from harness.tracking import TAG_LIMIT, MlflowTracker
from harness.training.planner import Plan

FACTS = ORIGIN | {"ledger": "a_study.default"}

TWO_STEPS = {"dataset": "digits", "batch_size": 600}
PAIR = Ablation(
    base=TrialSpec(**TWO_STEPS),
    arms={"bce": {}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=1, seeds=range(2))},
)


class Kill(BaseException):
    """The process ends here; nothing catches it."""


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a tiny trial's time."""

    def draw(subject: figures.Subject, folder: Path, names: Collection[str]) -> Iterator[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        return iter(())

    monkeypatch.setattr(training.figures, "draw", draw)


class Start:
    """A start of `harness study`, without its report: a new driver and desk over the same ledger and records."""

    def __init__(
        self,
        plan: Ablation,
        tracker: MemoryTracker,
        executor_of: Callable[[OutputDirs], Executor] = InProcess,
        lanes: int = 1,
        together: Plan | None = None,
    ) -> None:
        self.said = io.StringIO()
        self.plan = replace(together or ALONE, lanes=lanes)
        self.queue = queue_of(plan, lanes=lanes, plan=self.plan)
        self.driver_in = lambda scratch: driver_of(self.queue, tracker, scratch, executor_of, self.plan, printed=self.said)

    def go(self, scratch: Path) -> "Start":
        driver = self.driver_in(scratch)
        self.notes = driver.reconcile()
        self.queue.prepare()
        driver.run()
        return self

    def states(self) -> Counter[str]:
        return Counter(t.state.name for t in self.queue.store.trials())


def statuses(tracker: MemoryTracker) -> Counter[str]:
    return Counter(run["status"] for run in tracker.runs.values())


def one_result_per_cell(plan: Ablation, start: Start, tracker: MemoryTracker) -> bool:
    finished = Counter(run["cell"] for run in tracker.runs.values() if run["status"] == "FINISHED")
    complete = Counter(t.user_attrs["cell"] for t in start.queue.store.trials(TrialState.COMPLETE))
    wanted = Counter(c.spec.id for c in plan.cells("default"))
    agree = all(tracker.runs[run]["cell"] == cell for cell, run in start.queue.done().items())
    return finished == complete == wanted and agree


# -------------------------------------------------------------------------------- studies of this project


ABLATIONS = [n for n in study.names() if isinstance(study.load_study(n), Ablation)]
SEARCHES = [n for n in study.names() if isinstance(study.load_study(n), Search)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_runs_three_small_trials_and_names_what_to_test(name: str, tmp_path: Path) -> None:
    found = study.load_study(name)
    small = replace(found, base=found.base.derive(**TWO_STEPS), budgets={"default": SearchBudget(trials=3, epochs=2)})
    directions = ["maximize" if study.SCORES[o].better == "higher" else "minimize" for o in small.objectives]
    tracker = MemoryTracker()
    queue = SearchQueue(TrialStore("a_search", directions, database()), small, "default", 2)
    driver = driver_of(queue, tracker, tmp_path)
    driver.headline = small.quality
    driver.reconcile()
    queue.prepare()
    driver.run()
    assert queue.missing == 0
    assert {a.state for a in queue.history()} <= {"COMPLETE", "PRUNED"}
    assert not any(name.startswith("test/") for run in tracker.runs.values() for name in run["metrics"])
    best = queue.best()
    assert best
    arms = small.judged("default", {"tuned": best[0].spec}).arms
    assert set(arms["tuned"]) <= set(small.space)


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_runs_two_steps(name: str, tmp_path: Path) -> None:
    found = study.load_study(name)
    small = replace(found, base=found.base.derive(**TWO_STEPS), budgets={"default": Budget(epochs=1, seeds=(0,))})
    tracker = MemoryTracker()
    first = Start(small, tracker).go(tmp_path)
    assert one_result_per_cell(small, first, tracker)
    specs = {c.spec.id: c.spec for c in small.cells("default")}
    for run in tracker.runs.values():
        assert [step for step, _ in run["rows"]] == [1]
        assert {"state_dict.pt", "pictures.npz", "figures"} == {p.name for p in run["files"].iterdir()}
        pictures = {p.stem for p in (run["files"] / "figures").iterdir()}
        there = figures.IN_QUICK if specs[run["cell"]].evaluation == "quick" else figures.FIGURES
        assert pictures >= set(there) - set(figures.NEEDS_TWO_LATENTS) - {"dead_units"}
        assert set(run["metrics"]) >= {"elbo/train", "test/squared_error", "perf/train_s", "model/parameters"}
    second = Start(small, tracker).go(tmp_path)
    assert second.states() == first.states()
    assert len(tracker.runs) == len(small.arms)


# -------------------------------------------------------------------------------- starting again


def test_a_second_start_does_nothing(tmp_path: Path, no_pictures: None) -> None:
    tracker = MemoryTracker()
    first = Start(PAIR, tracker).go(tmp_path)

    def never(places: OutputDirs) -> Executor:
        raise AssertionError("nothing is left to train")

    second = Start(PAIR, tracker, never).go(tmp_path)
    assert one_result_per_cell(PAIR, second, tracker)
    assert second.notes == []
    assert first.states() == second.states() == {"COMPLETE": 4}


def test_what_the_ledger_remembers_is_the_objective(tmp_path: Path, no_pictures: None) -> None:
    tracker = MemoryTracker()
    start = Start(PAIR, tracker).go(tmp_path)
    for trial in start.queue.store.trials():
        run = tracker.runs[trial.user_attrs["run"]]
        assert trial.value == run["metrics"]["validation/squared_error"]
        assert run["trial"] == trial.number


def test_a_study_that_grows_trains_what_is_new(tmp_path: Path, no_pictures: None) -> None:
    tracker = MemoryTracker()
    Start(PAIR, tracker).go(tmp_path)
    grown = replace(PAIR, arms={**PAIR.arms, "wide": {"latent": 3}})
    start = Start(grown, tracker).go(tmp_path)
    assert one_result_per_cell(grown, start, tracker)
    assert len(tracker.runs) == 6


def test_trials_of_one_shape_train_together(tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []
    submit = InProcess.submit
    monkeypatch.setattr(InProcess, "submit", lambda self, job: (jobs.append(job), submit(self, job)))
    tracker = MemoryTracker()
    start = Start(PAIR, tracker, lanes=8).go(tmp_path)
    assert one_result_per_cell(PAIR, start, tracker)
    assert sorted(len(j.specs) for j in jobs) == [2, 2]
    assert all(len({s.cohort for s in j.specs}) == 1 for j in jobs)


def test_the_first_seed_of_every_arm_gets_all_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prior_samples: dict[int, set[int]] = {}

    def draw(subject: figures.Subject, folder: Path, names: Collection[str]) -> Iterator[Path]:
        prior_samples.setdefault(subject.spec.seed, set()).add(len(names))
        folder.mkdir(parents=True, exist_ok=True)
        return iter(())

    monkeypatch.setattr(training.figures, "draw", draw)
    Start(PAIR, MemoryTracker()).go(tmp_path)
    assert prior_samples == {0: {len(figures.FIGURES)}, 1: {len(figures.AT_A_GLANCE)}}


def test_arms_of_a_mixed_group_train_together(tmp_path: Path, no_pictures: None) -> None:
    tracker = MemoryTracker()
    mixed = Plan(1, 8, frozenset(), frozenset({PAIR.base.derive(epochs=1).mixed}), "")
    start = Start(PAIR, tracker, lanes=8, together=mixed).go(tmp_path)
    assert one_result_per_cell(PAIR, start, tracker)


@pytest.mark.parametrize("after", range(4))
def test_a_kill_between_finish_and_tell_loses_nothing(
    after: int, tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, start = MemoryTracker(), None
    start = Start(PAIR, tracker)
    tell, told = start.queue.complete, []

    def killed(assignment: Assignment, metrics: Mapping[str, float]) -> Outcome:
        if len(told) == after:
            raise Kill
        told.append(assignment)
        return tell(assignment, metrics)

    monkeypatch.setattr(start.queue, "complete", killed)
    with pytest.raises(Kill):
        start.go(tmp_path)
    assert statuses(tracker) == {"FINISHED": after + 1}
    again = Start(PAIR, tracker).go(tmp_path)
    assert one_result_per_cell(PAIR, again, tracker)
    assert len(tracker.runs) == 4
    assert "took over 1 trial" in again.notes[0]


def test_ten_kills_between_a_run_s_end_and_its_tell_leave_ten_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PAIR, budgets={"default": Budget(epochs=1, seeds=range(5), evaluation="validation")})
    tracker = MemoryTracker()

    def killed(assignment: Assignment, metrics: Mapping[str, float]) -> Outcome:
        raise Kill

    for done in range(10):
        start = Start(plan, tracker)
        monkeypatch.setattr(start.queue, "complete", killed)
        with pytest.raises(Kill):
            start.go(tmp_path)
        assert statuses(tracker) == {"FINISHED": done + 1}
    last = Start(plan, tracker)
    assert "took over 1 trial" in driver_of(last.queue, tracker, tmp_path).reconcile()[0]
    assert one_result_per_cell(plan, last, tracker)
    assert len(tracker.runs) == 10


def test_a_kill_before_finish_runs_the_cell_again_once(tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MemoryTracker()
    finish, calls = tracker.finish, []

    def killed(run: str, result: Result, files: Path) -> None:
        calls.append(run)
        if len(calls) == 2:
            raise Kill
        finish(run, result, files)

    monkeypatch.setattr(tracker, "finish", killed)
    with pytest.raises(Kill):
        Start(PAIR, tracker).go(tmp_path)
    again = Start(PAIR, tracker).go(tmp_path)
    assert one_result_per_cell(PAIR, again, tracker)
    assert statuses(tracker) == {"FINISHED": 4, "KILLED": 1}
    assert again.states() == {"COMPLETE": 4}
    (killed_run,) = (r for r in tracker.runs.values() if r["status"] == "KILLED")
    assert [r["cell"] for r in tracker.runs.values()].count(killed_run["cell"]) == 2


def test_a_kill_before_the_run_is_noted_is_mended(tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MemoryTracker()
    start = Start(PAIR, tracker)

    def killed(assignment: Assignment, run: str) -> None:
        raise Kill

    monkeypatch.setattr(start.queue, "note_run", killed)
    with pytest.raises(Kill):
        start.go(tmp_path)
    again = Start(PAIR, tracker).go(tmp_path)
    assert one_result_per_cell(PAIR, again, tracker)
    assert statuses(tracker) == {"FINISHED": 4, "KILLED": 1}


def test_a_cell_is_lost_at_most_three_times(tmp_path: Path, no_pictures: None) -> None:
    plan = replace(PAIR, arms={"bce": {}}, budgets={"default": Budget(epochs=1, seeds=(0,))})
    tracker = MemoryTracker()

    class Mortal(InProcess):
        def submit(self, job: Job) -> None:
            self.training = (Failed(s.id, "its worker died", final=False) for s in job.specs)

    start = Start(plan, tracker, Mortal).go(tmp_path)
    assert statuses(tracker) == {"FAILED": ATTEMPTS}
    assert list(start.queue.given_up().values()) == ["its worker died"]
    Start(plan, tracker, Mortal).go(tmp_path)
    assert statuses(tracker) == {"FAILED": ATTEMPTS}


def test_one_driver_at_a_time() -> None:
    with driver_lock("a_study"):
        with (
            pytest.raises(MachineError, match=f"another driver is running the study 'a_study'.*{os.getpid()}"),
            driver_lock("a_study"),
        ):
            pass
        with driver_lock("another"):
            pass
    with driver_lock("a_study"):
        pass


# -------------------------------------------------------------------------------- failing


DIVERGING = replace(PAIR, arms={"bce": {}, "mad": {"likelihood": "gaussian_per_pixel", "learning_rate": 1e6}})


def test_a_diverging_arm_fails_with_its_reason_and_the_rest_completes(
    tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MemoryTracker()
    plan = replace(DIVERGING, budgets={"default": Budget(epochs=3, seeds=range(2))})
    start = Start(plan, tracker).go(tmp_path)
    assert statuses(tracker) == {"FINISHED": 2, "FAILED": 2}
    for run in tracker.runs.values():
        assert ("loss not finite at step" in run.get("failure", "")) == (run["status"] == "FAILED")
    assert "mad / seed 0: FAILED: loss not finite" in start.said.getvalue()
    assert len(start.queue.given_up()) == 2

    again = Start(plan, tracker).go(tmp_path)
    assert again.states() == start.states() == {"COMPLETE": 2, "FAIL": 2}  # trying again would fail again

    monkeypatch.setattr(provenance, "code", lambda: "mended")
    assert len(Start(plan, tracker).queue.given_up()) == 0
    mended = Start(plan, tracker).go(tmp_path)
    assert mended.states() == {"COMPLETE": 2, "FAIL": 4}


@pytest.mark.slow
def test_a_killed_worker_loses_its_trial_only_and_it_is_tried_again(tmp_path: Path) -> None:
    plan = replace(PAIR, budgets={"default": Budget(epochs=100, seeds=(0,))})
    pool = Processes(["cpu", "cpu"], OutputDirs(tmp_path, paths.mlruns() / "checkpoints"))
    victims: list[int] = []

    class Sniper(MemoryTracker):
        def log(self, run: str, step: int, row: Mapping[str, float]) -> None:
            super().log(run, step, row)
            if not victims:
                cell = self.runs[run]["cell"]
                (worker,) = (w for w in pool.workers if cell in w.left)
                victims.append(worker.process.pid or 0)
                os.kill(victims[0], signal.SIGKILL)

    tracker = Sniper()
    start = Start(plan, tracker, lambda places: pool).go(tmp_path)
    assert one_result_per_cell(plan, start, tracker)
    assert statuses(tracker) == {"FINISHED": 2, "FAILED": 1}
    (lost,) = (r for r in tracker.runs.values() if r["status"] == "FAILED")
    assert lost["failure"] == "its worker process ended (killed by SIGKILL)"
    assert "will try again" in start.said.getvalue()
    assert all(not w.process.is_alive() for w in pool.workers if w.process._popen)


# -------------------------------------------------------------------------------- the record in MLflow


def folder_of_a_result(tmp_path: Path) -> Path:
    files = tmp_path / "result"
    (files / "figures").mkdir(parents=True)
    (files / "figures" / "curves.png").write_bytes(b"picture")
    (files / "pictures.npz").write_bytes(b"arrays")
    return files


def test_mlflow_holds_a_trial_from_begin_to_finish(mlflow_store: Path, tmp_path: Path) -> None:
    spec = TrialSpec(dataset="digits", seed=3)
    tracker = MlflowTracker("a_study", "default", "a note")
    client = mlflow.MlflowClient()
    run = tracker.begin(spec, "bce", 7, 1, FACTS)
    assert client.get_run(run).info.status == "RUNNING"
    assert tracker.finished_runs("a_study.default") == set()
    tracker.log(run, 1, {"elbo/train": -200.0})
    tracker.log(run, 2, {"elbo/train": -150.0})
    tracker.finish(run, Result(spec, {"test/squared_error": 30.0}), folder_of_a_result(tmp_path))

    kept = client.get_run(run)
    assert kept.info.status == "FINISHED"
    wanted = {
        "kind": "trial",
        "study": "a_study",
        "cell": spec.id,
        "arm": "bce",
        "seed": "3",
        "trial": "7",
        "git.commit": provenance.commit().partition("+")[0],
        "mlflow.parentRunId": tracker.parent,
    }
    assert {k: kept.data.tags.get(k) for k in wanted} == wanted
    assert kept.data.params["likelihood"] == "bce"
    assert kept.inputs.dataset_inputs[0].dataset.name == "digits"
    assert [(m.step, m.value) for m in client.get_metric_history(run, "elbo/train")] == [(1, -200.0), (2, -150.0)]
    assert tracker.file(run, "pictures.npz").read_bytes() == b"arrays"
    assert TrialSpec.from_dict(mlflow.artifacts.load_dict(f"{kept.info.artifact_uri}/spec.json")) == spec
    assert tracker.look(run) == ("FINISHED", {"elbo/train": -150.0, "test/squared_error": 30.0})
    assert tracker.finished_runs("a_study.default") == {run}
    assert tracker.finished_runs("another") == set()
    (record,) = tracker.results({spec.id: run, "another": "missing"}).values()
    assert (record.run, record.metrics["test/squared_error"]) == (run, 30.0)


def test_mlflow_tells_failed_killed_and_orphaned_apart(mlflow_store: Path) -> None:
    tracker = MlflowTracker("a_study", "default", "")
    failed, stopped, orphan, mine = (tracker.begin(TrialSpec(seed=i), "bce", i, 1, FACTS) for i in range(4))
    tracker.fail(failed, "x" * 100_000)
    tracker.fail(stopped, "stopped", killed=True)
    assert tracker.close_orphans("another", set(), 0) == 0
    assert tracker.close_orphans("a_study.default", {mine}, 3600) == 0
    assert tracker.close_orphans("a_study.default", {mine}, 0) == 1
    assert [mlflow.get_run(r).info.status for r in (failed, stopped, orphan, mine)] == ["FAILED", "KILLED", "KILLED", "RUNNING"]
    assert mlflow.get_run(failed).data.tags["failure"] == "x" * TAG_LIMIT
    assert tracker.finished_runs("a_study.default") == set()


def test_mlflow_keeps_one_parent_per_study_and_budget(mlflow_store: Path, tmp_path: Path) -> None:
    first, second, smoke = (MlflowTracker("a_study", b, "") for b in ("default", "default", "smoke"))
    assert first.parent == second.parent != smoke.parent
    assert smoke.experiment == "a_study-smoke"
    first.reopen_study()
    assert mlflow.get_run(first.parent).info.status == "RUNNING"
    first.stop_study()
    assert mlflow.get_run(first.parent).info.status == "KILLED"
    first.finish_study(folder_of_a_result(tmp_path), {"verdict": "none"})
    parent = mlflow.get_run(first.parent)
    assert (parent.info.status, parent.data.tags["kind"], parent.data.tags["verdict"]) == ("FINISHED", "study", "none")


def test_a_study_on_record_in_mlflow_is_resumed(
    mlflow_store: Path, tmp_path: Path, no_pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MlflowTracker("a_study", "default", "")
    start = Start(PAIR, tracker)

    def killed(assignment: Assignment, metrics: Mapping[str, float]) -> Outcome:
        raise Kill

    monkeypatch.setattr(start.queue, "complete", killed)
    with pytest.raises(Kill):
        start.go(tmp_path)
    again = Start(PAIR, MlflowTracker("a_study", "default", "")).go(tmp_path)
    assert "took over 1 trial" in again.notes[0]
    found = tracker._all("tags.kind = 'trial'")
    assert Counter(r.info.status for r in found) == {"FINISHED": 4}
    assert set(again.queue.done().values()) == {r.info.run_id for r in found}
