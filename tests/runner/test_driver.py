"""The loop of a study, killed where it hurts: whatever happens, one result per cell and no work done twice."""

import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drivers import PAIR, Kill, Start, driver_of, dying, one_result_per_cell, statuses
from memory_tracker import MemoryTracker
from pictures import noise

from harness import figures, paths
from harness.data import load_dataset
from harness.errors import DataError, MachineError
from harness.executors import Executor, Failed, InProcess, Job, OutputDirs, Processes, parts
from harness.models.vae import mixing_group
from harness.queue import ATTEMPTS, AblationQueue, Assignment, SearchQueue, TrialStore, database, driver_lock
from harness.runner.reconciling import reconcile
from harness.runner.signals import Stopped
from harness.spec import Result
from harness.study import Ablation, Budget, Real, Search, SearchBudget
from harness.training.planner import Plan

# -------------------------------------------------------------------------------- starting again


def test_a_second_start_does_nothing(tmp_path: Path) -> None:
    tracker = MemoryTracker()
    first = Start(PAIR, tracker).go(tmp_path)

    def never(dirs: OutputDirs) -> Executor:
        raise AssertionError("nothing is left to train")

    second = Start(PAIR, tracker, never).go(tmp_path)
    assert one_result_per_cell(PAIR, second, tracker)
    assert second.notes == []
    assert first.states() == second.states() == {"COMPLETE": 4}


def test_what_the_store_remembers_is_the_objective(tmp_path: Path) -> None:
    tracker = MemoryTracker()
    start = Start(PAIR, tracker).go(tmp_path)
    for trial in start.queue.store.trials():
        run = tracker.runs[trial.user_attrs["run"]]
        assert trial.value == run["metrics"]["validation/squared_error"]
        assert run["trial"] == trial.number


def test_a_study_that_grows_trains_what_is_new(tmp_path: Path) -> None:
    tracker = MemoryTracker()
    Start(PAIR, tracker).go(tmp_path)
    grown = replace(PAIR, arms={**PAIR.arms, "wide": {"latent": 3}})
    start = Start(grown, tracker).go(tmp_path)
    assert one_result_per_cell(grown, start, tracker)
    assert len(tracker.runs) == 6


def test_trials_of_one_shape_train_together(tmp_path: Path) -> None:
    jobs: list[Job] = []

    class Watched(InProcess):
        def submit(self, job: Job) -> None:
            jobs.append(job)
            super().submit(job)

    tracker = MemoryTracker()
    start = Start(PAIR, tracker, Watched, lanes=8).go(tmp_path)
    assert one_result_per_cell(PAIR, start, tracker)
    assert sorted(len(j.specs) for j in jobs) == [2, 2]
    assert all(len({s.cohort for s in j.specs}) == 1 for j in jobs)


@pytest.mark.slow
def test_the_first_seed_of_every_arm_gets_all_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[int, set[int]] = {}

    def draw(subject: figures.Subject, folder: Path, names: Collection[str]) -> Iterator[Path]:
        drawn.setdefault(subject.spec.seed, set()).add(len(names))
        folder.mkdir(parents=True, exist_ok=True)
        return iter(())

    monkeypatch.setattr(figures, "draw", draw)
    Start(replace(PAIR, budgets={"default": Budget(epochs=1, seeds=range(2))}), MemoryTracker()).go(tmp_path)
    assert drawn == {0: {len(figures.FIGURES)}, 1: {len(figures.AT_A_GLANCE)}}


def test_arms_of_a_mixed_group_train_together(tmp_path: Path) -> None:
    tracker = MemoryTracker()
    mixed = Plan(1, 8, frozenset({mixing_group(PAIR.base.derive(epochs=1, evaluation="validation"))}), "")
    start = Start(PAIR, tracker, lanes=8, together=mixed).go(tmp_path)
    assert one_result_per_cell(PAIR, start, tracker)


def test_a_trial_that_stops_early_counts_and_frees_the_others(tmp_path: Path) -> None:
    """Also if the driver is killed when the trial beside it has finished."""
    base = PAIR.base.derive(batch_size=32, learning_rate=1e-2, latent=8)  # its sixth epoch is worse than the fifth
    budgets = {"default": Budget(epochs=7, seeds=(0,), evaluation="validation")}
    plan = replace(PAIR, base=base, arms={"early": {"patience": 1}, "late": {"patience": 7}}, budgets=budgets)
    together = Plan(1, 2, frozenset(), "")
    tracker = MemoryTracker()
    start = Start(plan, tracker, lanes=2, together=together, queue=dying(after=1))
    with pytest.raises(Kill):
        start.go(tmp_path)
    assert start.said.getvalue().count("stopped after 6 of 7 epochs") == 1
    again = Start(plan, tracker, lanes=2, together=together).go(tmp_path)
    assert one_result_per_cell(plan, again, tracker)
    early, late = (run["metrics"] for run in tracker.runs.values())
    assert (early["train/best_epoch"], late["train/best_epoch"]) == (5, 7)
    assert early["elbo/validation"] < late["elbo/validation"]


@pytest.mark.parametrize("after", range(4))
def test_a_kill_between_finish_and_tell_loses_nothing(after: int, tmp_path: Path) -> None:
    tracker = MemoryTracker()
    with pytest.raises(Kill):
        Start(PAIR, tracker, queue=dying(after)).go(tmp_path)
    assert statuses(tracker) == {"FINISHED": after + 1}
    again = Start(PAIR, tracker)
    at = paths.mlruns() / "checkpoints" / "cpu"
    left = [at / again.queue.store.name / run["cell"] for run in tracker.runs.values()]
    others = [at / "another.default" / folder.name for folder in left]  # the same trials in another study, which go on there
    for folder in (*left, *others):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "000001.json").write_text("cut o")
    again.go(tmp_path)
    assert one_result_per_cell(PAIR, again, tracker)
    assert len(tracker.runs) == 4
    assert not any(folder.exists() for folder in left)
    assert all(folder.exists() for folder in others)
    assert "took over 1 trial" in again.notes[0]


def test_checkpoints_of_a_trial_that_trains_again_are_kept(tmp_path: Path) -> None:
    """Its first run was deleted in MLflow; the second was cut off."""
    tracker = MemoryTracker()
    Start(PAIR, tracker).go(tmp_path)
    deleted = tracker.runs.pop("run-0")
    start = Start(PAIR, tracker)
    folder = paths.mlruns() / "checkpoints" / "cpu" / start.queue.store.name / deleted["cell"]
    folder.mkdir(parents=True)
    (folder / "000001.pt").write_bytes(b"half a training")
    reconcile(start.queue, tracker)
    assert folder.exists()


def test_ten_kills_between_a_run_s_end_and_its_tell_leave_ten_results(tmp_path: Path) -> None:
    plan = replace(PAIR, budgets={"default": Budget(epochs=1, seeds=range(5), evaluation="validation")})
    tracker = MemoryTracker()
    for done in range(10):
        with pytest.raises(Kill):
            Start(plan, tracker, queue=dying()).go(tmp_path)
        assert statuses(tracker) == {"FINISHED": done + 1}
    last = Start(plan, tracker)
    assert "took over 1 trial" in driver_of(last.queue, tracker, tmp_path).reconcile()[0]
    assert one_result_per_cell(plan, last, tracker)
    assert len(tracker.runs) == 10


def test_a_kill_before_finish_runs_the_cell_again_once(tmp_path: Path) -> None:
    class Mortal(MemoryTracker):
        finished = 0

        def finish(self, run: str, result: Result, files: Path) -> None:
            self.finished += 1
            if self.finished == 2:
                raise Kill
            super().finish(run, result, files)

    tracker = Mortal()
    with pytest.raises(Kill):
        Start(PAIR, tracker).go(tmp_path)
    again = Start(PAIR, tracker).go(tmp_path)
    assert one_result_per_cell(PAIR, again, tracker)
    assert statuses(tracker) == {"FINISHED": 4, "KILLED": 1}
    assert again.states() == {"COMPLETE": 4}
    (killed_run,) = (r for r in tracker.runs.values() if r["status"] == "KILLED")
    assert [r["cell"] for r in tracker.runs.values()].count(killed_run["cell"]) == 2


def test_a_kill_before_the_run_is_noted_is_mended(tmp_path: Path) -> None:
    class Dying(AblationQueue):
        def note_run(self, assignment: Assignment, run: str) -> None:
            raise Kill

    tracker = MemoryTracker()
    with pytest.raises(Kill):
        Start(PAIR, tracker, queue=Dying).go(tmp_path)
    again = Start(PAIR, tracker).go(tmp_path)
    assert one_result_per_cell(PAIR, again, tracker)
    assert statuses(tracker) == {"FINISHED": 4, "KILLED": 1}


def test_a_cell_is_lost_at_most_three_times(tmp_path: Path) -> None:
    plan = replace(PAIR, arms={"bce": {}}, budgets={"default": Budget(epochs=1, seeds=(0,), evaluation="validation")})
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


def test_nothing_that_is_not_finite_reaches_the_stores(tmp_path: Path) -> None:
    """The last update ruins the weights after a finite loss."""
    tracker = MemoryTracker()
    base = PAIR.base.derive(network="mlp", hidden=(16,), batch_size=1197)
    budgets = {"default": Budget(epochs=1, seeds=range(1), evaluation="validation")}
    start = Start(replace(PAIR, base=base, arms={"bce": {}, "mad": {"learning_rate": 1e10}}, budgets=budgets), tracker).go(tmp_path)
    assert statuses(tracker) == {"FINISHED": 1, "FAILED": 1}
    (failure,) = (run["failure"] for run in tracker.runs.values() if run["status"] == "FAILED")
    assert failure.startswith("not finite after epoch 1: elbo/validation")
    numbers = [v for run in tracker.runs.values() for v in run["metrics"].values()]
    assert numbers
    assert all(abs(v) < 1e30 for v in numbers)
    assert start.states() == {"COMPLETE": 1, "FAIL": 1}


def test_a_diverging_arm_fails_with_its_reason_and_the_rest_completes(tmp_path: Path) -> None:
    tracker = MemoryTracker()
    plan = replace(DIVERGING, budgets={"default": Budget(epochs=3, seeds=range(2), evaluation="validation")})
    start = Start(plan, tracker).go(tmp_path)
    assert statuses(tracker) == {"FINISHED": 2, "FAILED": 2}
    for run in tracker.runs.values():
        assert ("loss not finite at step" in run.get("failure", "")) == (run["status"] == "FAILED")
    assert "mad / seed 0: FAILED: loss not finite" in start.said.getvalue()
    assert len(start.queue.given_up()) == 2

    again = Start(plan, tracker).go(tmp_path)
    assert again.states() == start.states() == {"COMPLETE": 2, "FAIL": 2}  # trying again would fail again

    assert len(Start(plan, tracker, code="mended").queue.given_up()) == 0
    mended = Start(plan, tracker, code="mended").go(tmp_path)
    assert mended.states() == {"COMPLETE": 2, "FAIL": 4}


@pytest.mark.slow
def test_a_killed_worker_loses_its_trial_only_and_it_is_tried_again(tmp_path: Path, fixed_code: None) -> None:
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
    start = Start(plan, tracker, lambda dirs: pool).go(tmp_path)
    assert one_result_per_cell(plan, start, tracker)
    assert statuses(tracker) == {"FINISHED": 2, "FAILED": 1}
    (lost,) = (r for r in tracker.runs.values() if r["status"] == "FAILED")
    assert lost["failure"] == "its worker process ended (killed by SIGKILL)"
    assert "will try again" in start.said.getvalue()
    assert all(not w.process.is_alive() for w in pool.workers if w.process._popen)


class Without(InProcess):
    """An executor on a machine that lacks the images."""

    def submit(self, job: Job) -> None:
        self.training = (Failed(s.id, "faces.npz is not on this machine", final=False, data=True) for s in job.specs)


def test_missing_images_end_the_study_and_no_trial_fails_by_them(tmp_path: Path) -> None:
    plan, tracker = replace(PAIR, arms={"bce": {}}), MemoryTracker()
    for _ in range(ATTEMPTS + 1):
        start = Start(plan, tracker, Without)
        with pytest.raises(
            DataError, match=r"faces.npz is not on this machine\n.*once the data are as they were, the same command"
        ):
            start.go(tmp_path)
        assert "cannot go on: 1 trial cut off, 0 of 2 kept" in start.said.getvalue()
    assert set(statuses(tracker)) == {"KILLED"}
    assert start.queue.given_up() == {}
    assert one_result_per_cell(plan, Start(plan, tracker).go(tmp_path), tracker)


def test_missing_images_end_a_search_and_no_trial_fails_by_them(tmp_path: Path) -> None:
    search = Search(
        base=PAIR.base,
        space={"learning_rate": Real(1e-4, 1e-2, log=True)},
        objectives=("elbo/validation",),
        sampler="random",
        budgets={"default": SearchBudget(trials=2, epochs=1)},
    )
    tracker = MemoryTracker()

    def start(executor_of: Callable[[OutputDirs], Executor]) -> SearchQueue:
        queue = SearchQueue(TrialStore("a_search.default", ["maximize"], database()), search, "default", 2)
        driver = driver_of(queue, tracker, tmp_path, executor_of, headline="validation/squared_error")
        driver.reconcile()
        queue.prepare()
        driver.run()
        return queue

    for _ in range(ATTEMPTS + 1):
        with pytest.raises(DataError, match="not on this machine"):
            start(Without)
    assert [t.state for t in start(InProcess).history()] == ["COMPLETE"] * 2


DRAWN = """import numpy as np


def drawn():
    return np.load("images.npy")
"""
IMAGES = (0, 0, 1)  # the seed of a function's images at each start


def test_a_trial_that_was_interrupted_starts_anew_if_its_images_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("drawn_images.py").write_text(DRAWN)
    spec = PAIR.base.derive(dataset="drawn_images.py:drawn", network="mlp", hidden=(4,), batch_size=200)
    plan = Ablation(base=spec, arms={"bce": {}}, budgets={"default": Budget(epochs=4, seeds=(0,), evaluation="validation")})
    starts: list[int] = []

    class Watched(InProcess):
        def submit(self, job: Job) -> None:
            starts.append(job.start)
            super().submit(job)

    class Interrupted(MemoryTracker):
        def log(self, run: str, step: int, row: Mapping[str, float]) -> None:
            super().log(run, step, row)
            if len(starts) < len(IMAGES) and step == len(starts) + 1:
                raise Stopped(signal.SIGTERM)

    tracker = Interrupted()
    for seed in IMAGES:
        np.save("images.npy", noise(200, 4, 4, seed=seed))
        parts.dataset.cache_clear()
        driver = Start(plan, tracker, Watched).driver_in(tmp_path)
        driver.origin = {**driver.origin, "dataset.digest": load_dataset(spec.dataset).digest}
        driver.reconcile()
        driver.queue.prepare()
        with suppress(Stopped):
            driver.run()
    assert starts == [0, 2, 0]
    assert [[step for step, _ in run["rows"]] for run in tracker.runs.values()] == [[1, 2, 3], [1, 2, 3, 4]]
    assert statuses(tracker) == {"KILLED": 1, "FINISHED": 1}
