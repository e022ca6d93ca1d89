"""Jobs as submitit starts them, here as processes of this machine: all but the scheduler is what a SLURM cluster runs."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import own_file
import pytest
from tiny_driver import TinyDriver

from harness.errors import MachineError, UserError
from harness.executors import Epoch, Event, Failed, Finished, InProcess, Job, OutputDirs, Pruned, make
from harness.spec import TrialSpec
from harness.training.checkpoints import Checkpoints

pytestmark = pytest.mark.slow
pytest.importorskip("submitit", reason="submitit is not installed: pip install -e '.[slurm]'")

TRIAL = TrialSpec(dataset="digits", batch_size=100, epochs=20, evaluation="validation")
ENDLESS = TRIAL.derive(epochs=100_000)


@pytest.fixture
def pool(dirs: OutputDirs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("HARNESS_SLURM_CLUSTER", "local")
    executor = make("slurm", ["cpu", "cpu"], dirs)
    yield executor
    executor.close()


def until_over(pool: Any) -> Iterator[Event]:
    while pool.running:
        yield from pool.events()


def undisturbed(spec: TrialSpec, folder: Path) -> str:
    """SHA-256 of its weights when trained here, in one go."""
    dirs = OutputDirs(folder / "scratch", folder / "checkpoints")
    driver = TinyDriver(InProcess(dirs), dirs)
    driver.run([spec])
    return driver.weights(spec)


def test_jobs_that_are_told_to_end_go_on_in_others(pool: Any, dirs: OutputDirs, tmp_path: Path) -> None:
    """One hears SIGTERM, as when preempted, one SIGUSR2, as when short of time. Both go on from where they were."""
    specs = {s.id: s for s in (TRIAL.derive(seed=n, epochs=60) for n in range(2))}
    signals = dict(zip(specs, (signal.SIGTERM, signal.SIGUSR2), strict=True))
    driver = TinyDriver(pool, dirs)

    def end(event: Event) -> None:
        if isinstance(event, Epoch) and event.epoch > 3 and event.spec in signals:
            job = next(r for r in pool.running.values() if event.spec in r.left)
            os.kill(task_of(job.handle.job_id), signals.pop(event.spec))

    driver.run(specs.values(), end)
    failed = {e.spec: e for e in driver.events if isinstance(e, Failed)}
    assert len(failed) == 2
    assert all("told to end" in e.why and not e.final for e in failed.values())
    assert sorted(driver.ended(Finished)) == sorted(specs)
    for trial in failed:
        first, second = driver.starts[trial]
        assert first == 0 < 3 < second < 60
    one = next(iter(failed))
    assert driver.weights(specs[one]) == undisturbed(specs[one], tmp_path / "here")


def task_of(controller: str) -> int:
    """The process that submitit's controller has started for a job."""
    [child] = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    return int(child)


def test_a_job_that_waits_drops_at_once_and_another_soon(pool: Any) -> None:
    first, second = TRIAL.derive(seed=30), TRIAL.derive(seed=31)
    other = ENDLESS.derive(seed=40)
    pool.submit(Job((first, second), waits_for_pruning=True))
    pool.submit(Job((other,)))
    assert pool.free() == 0
    seen: Counter[str] = Counter()
    ends = {}
    for event in until_over(pool):
        if isinstance(event, Epoch):
            seen[event.spec] += 1
            if event.spec == other.id or (event.spec, event.epoch) == (first.id, 3):
                pool.prune([event.spec])
        else:
            ends[event.spec] = type(event)
    assert ends == {first.id: Pruned, second.id: Finished, other.id: Pruned}
    assert (seen[first.id], seen[second.id]) == (3, TRIAL.epochs)


def test_code_of_the_users_own_goes_with_the_job(pool: Any, tmp_path: Path) -> None:
    spec = own_file.spec_of(tmp_path / "gone")
    pool.submit(Job((spec,)))
    [finished] = [e for e in until_over(pool) if isinstance(e, Finished)]
    assert finished.result.metrics["test/contrast"] > 0


def test_a_job_that_is_killed_fails_its_trials(pool: Any) -> None:
    pool.late_s = 0.5
    pool.submit(Job((ENDLESS, ENDLESS.derive(seed=1))))
    [job] = pool.running.values()
    ends = []
    for event in until_over(pool):
        if not isinstance(event, Epoch):
            ends.append(event)
        elif event.epoch == 1 and event.spec == ENDLESS.id:
            os.kill(task_of(job.handle.job_id), signal.SIGKILL)
    why = f"its job process {job.handle.job_id} ended without a word (finished)"
    assert sorted(ends, key=lambda e: e.spec) == [Failed(trial, why, final=False) for trial in sorted(s.id for s in job.job.specs)]


def test_closing_keeps_the_newest_epoch(pool: Any, dirs: OutputDirs) -> None:
    pool.submit(Job((ENDLESS,)))
    shown = next(e.epoch for e in until_over(pool) if isinstance(e, Epoch) and e.epoch > 2)
    [task] = [task_of(r.handle.job_id) for r in pool.running.values()]
    started = time.monotonic()
    pool.close(patience_s=60)  # the job itself would take hours
    assert time.monotonic() - started < 60  # it ended by itself: it was not killed
    assert not Path(f"/proc/{task}").exists()
    assert Checkpoints(dirs.checkpoints).newest(ENDLESS) >= shown


def test_a_job_ends_when_another_driver_has_taken_over(pool: Any, dirs: OutputDirs) -> None:
    """That one has removed the folder, and trains the same trials."""
    pool.submit(Job((ENDLESS,)))
    next(e for e in until_over(pool) if isinstance(e, Epoch))
    [job] = pool.running.values()
    job.folder.rename(job.folder.with_name("gone"))
    until = time.monotonic() + 60
    while not job.handle.done():
        assert time.monotonic() < until
        time.sleep(0.1)
    assert Checkpoints(dirs.checkpoints).newest(ENDLESS) > 0
    pool.running.clear()


def test_a_job_of_other_code_trains_nothing(pool: Any) -> None:
    """The files were edited between submission and start."""
    pool.code = "0123456789ab"
    pool.submit(Job((TRIAL,)))
    with pytest.raises(MachineError, match="the code has changed since the study was started: 0123456789ab, now "):
        list(until_over(pool))


def test_never_on_this_machine_unless_asked(dirs: OutputDirs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("HARNESS_SLURM_CLUSTER", raising=False)
    with pytest.raises(MachineError, match="no sbatch here"):
        make("slurm", ["cpu"], dirs)
    monkeypatch.setenv("HARNESS_SLURM_CLUSTER", "pbs")
    with pytest.raises(UserError, match="HARNESS_SLURM_CLUSTER=pbs\nknown: slurm, local"):
        make("slurm", ["cpu"], dirs)
