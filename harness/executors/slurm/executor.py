"""The executor with SLURM jobs, through submitit. All messages go through files on a file system that all nodes share (job.py)."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit

from harness import devices, provenance
from harness.errors import MachineError, UserError
from harness.executors.jobs import Event, Failed, Job, OutputDirs, ends_trial
from harness.executors.slurm.job import COMMAND, EVENTS, STOPPED, from_line, work

CLUSTERS = ("slurm", "local")
MINUTES = 240  # that a job may take unless SBATCH_TIMELIMIT sets another limit; another job goes on with what is not done then
WARNING_S = 60  # before the limit at which SLURM sends the signal to stop: ample for checkpoints on a slow file system
POLL_S = 0.1
CHECK_S = 10.0  # between two calls of squeue
OVER = {
    *("GONE", "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED"),
    *("TIMEOUT", "INTERRUPTED", "FINISHED", "NO PROCESS AND NO RESULT"),
}
LATE_S = 5.0  # the time after a job's end until which its last lines may become visible


@dataclass
class _Running:
    """A job that was submitted.

    Attributes:
        job: the job.
        handle: submitit's handle.
        folder: the folder for its messages.
        left: the ids of its trials that have not ended yet.
        read: the number of bytes of its events that were read.
        handled: the number of lines of its events that were handled.
        prune: the ids of its trials to prune.
        why: the reason why it is over; empty if it is not.
        since: the time at which it was seen to be over, in seconds of the monotonic clock.
    """

    job: Job
    handle: Any
    folder: Path
    left: set[str]
    read: int = 0
    handled: int = 0
    prune: set[str] = field(default_factory=set)
    why: str = ""
    since: float = 0.0

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the complete lines that have come since the last call, and count them as handled."""
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(self.read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.read += len(line)
                self.handled += 1
                yield json.loads(line)

    def send_command(self) -> None:
        """Write the job's command: how many lines were handled, and which trials to prune."""
        scratch = self.folder / f"{COMMAND}.new"
        scratch.write_text(json.dumps({"dealt": self.handled, "prune": sorted(self.prune)}))
        scratch.replace(self.folder / COMMAND)


class Slurm:
    """An executor that submits a SLURM job per job, at most as many at once as `workers` has entries.

    Each has a CPU and, if the first entry of `workers` is a GPU, a GPU. With HARNESS_SLURM_CLUSTER=local the jobs are processes of
    this machine instead. The resources of the jobs are set by the variables of sbatch: SBATCH_PARTITION, SBATCH_ACCOUNT,
    SBATCH_TIMELIMIT, ... SLURM is set to restart none of them: the driver does.

    Attributes:
        cluster: "slurm" or "local".
        most: the largest number of jobs at once.
        dirs: the folders to write to.
        late_s: the seconds after a job's end for which its events are still waited for.
        device: the kind of device of all jobs.
        folder: the folder of the jobs' folders.
        running: the jobs that are not over, by number.
        last_number: the number of the newest job.
        code: the digest of the driver's code.
        checked_at: the time of the last check of which jobs are over, in seconds of the monotonic clock.
        submitit: submitit's executor.

    Raises:
        UserError: HARNESS_SLURM_CLUSTER is unknown.
        MachineError: there is no SLURM on this machine.
    """

    most_evaluators = 0

    def __init__(self, workers: Sequence[str], dirs: OutputDirs, *, late_s: float = LATE_S) -> None:
        self.cluster = os.environ.get("HARNESS_SLURM_CLUSTER") or "slurm"
        if self.cluster not in CLUSTERS:
            raise UserError(f"unknown HARNESS_SLURM_CLUSTER={self.cluster}\nknown: {', '.join(CLUSTERS)}")
        if self.cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise MachineError(
                "no sbatch here: start the study on a node that may submit SLURM jobs\n"
                "to run the jobs as processes of this machine: HARNESS_SLURM_CLUSTER=local"
            )
        self.most, self.dirs, self.late_s = len(workers), dirs, late_s
        self.device = workers[0].partition(":")[0]
        self.folder = dirs.scratch / "jobs"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.running: dict[int, _Running] = {}
        self.last_number, self.code = 0, provenance.code()
        self.checked_at = 0.0
        self.submitit = submitit.AutoExecutor(self.folder / "logs", cluster=self.cluster)
        self.submitit.update_parameters(
            name="harness",
            timeout_min=MINUTES,
            nodes=1,
            tasks_per_node=1,
            cpus_per_task=1,
            gpus_per_node=1 if devices.is_gpu(self.device) else None,
            stderr_to_stdout=True,
            slurm_signal_delay_s=WARNING_S,
            slurm_additional_parameters={"no_requeue": True},
        )

    def free(self) -> int:
        """Return the number of jobs that may still be submitted."""
        return self.most - len(self.running)

    def submit(self, job: Job) -> None:
        """Submit a job.

        Raises:
            MachineError: sbatch refuses it.
        """
        self.last_number += 1
        folder = self.folder / f"{self.last_number}"
        folder.mkdir()
        (folder / EVENTS).touch()
        running = _Running(job, None, folder, {s.id for s in job.specs})
        running.send_command()
        try:
            running.handle = self.submitit.submit(work, job, self.device, folder, self.dirs, self.code)
        except (submitit.core.utils.FailedJobError, subprocess.SubprocessError) as fault:
            raise MachineError(f"sbatch refuses the job: {str(fault).strip().splitlines()[-1]}") from None
        self.running[self.last_number] = running

    def events(self) -> Iterator[Event]:
        """Yield the events that have come; while jobs are running, wait for the first one.

        Raises:
            MachineError: a job has other code than the driver.
        """
        for running in self.running.values():  # the caller has dealt with the rows of the call before
            if running.job.waits_for_pruning:
                running.send_command()
        happened = False
        while self.running and not happened:
            self._check_jobs()
            for number, running in list(self.running.items()):
                for event in self._new_events(running):
                    happened = True
                    if not running.left:
                        self.running.pop(number, None)
                    yield event
                if running.left and running.why and time.monotonic() > running.since + self.late_s:
                    happened = True
                    del self.running[number]
                    yield from (Failed(spec, running.why, final=False) for spec in running.left)
            if not happened:
                time.sleep(POLL_S)

    def _new_events(self, running: _Running) -> Iterator[Event]:
        """Yield the events of a job that have come since the last call."""
        specs = {s.id: s for s in running.job.specs}
        for line in running.lines():
            if line == STOPPED:
                running.why, running.since = f"its {self._name(running)} was told to end: preempted, cancelled or out of time", 0.0
                return
            if "code" in line:
                raise MachineError(
                    f"the code has changed since the study was started: {self.code}, now {line['code']}\n"
                    "start it again: the same command goes on"
                )
            event = from_line(line, specs, self.dirs)
            if ends_trial(event):
                running.left.discard(event.spec)
            yield event

    def _name(self, running: _Running) -> str:
        """Return the name of a job in words."""
        return f"SLURM job {running.handle.job_id}" if self.cluster == "slurm" else f"job process {running.handle.job_id}"

    def _check_jobs(self) -> None:
        """Find out which jobs are over, unless that was done within the last CHECK_S (with SLURM)."""
        if self.cluster == "slurm" and time.monotonic() < self.checked_at + CHECK_S:
            return
        self.checked_at = time.monotonic()
        states = self._states()
        if states is None:
            return
        for running in self.running.values():
            state = states.get(running.handle.job_id, "GONE")
            if not running.why and state in OVER:
                state_in_words = state.lower().replace("_", " ")
                running.why, running.since = f"its {self._name(running)} ended without a word ({state_in_words})", self.checked_at

    def _states(self) -> dict[str, str] | None:
        """Return the states of all jobs by id, or None if SLURM does not answer.

        They come from squeue, since sacct, which submitit calls, exists on some clusters only.
        """
        if self.cluster == "local":
            return {r.handle.job_id: r.handle.state for r in self.running.values()}
        command = ["squeue", "--me", "--noheader", "--states=all", "--format=%i %T"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        return dict(line.split() for line in answer.stdout.splitlines()) if answer.returncode == 0 else None

    def prune(self, ids: Collection[str]) -> None:
        """End these trials at the end of an epoch."""
        for running in self.running.values():
            running.prune |= running.left & set(ids)
            if not running.job.waits_for_pruning:
                running.send_command()

    def close(self, patience_s: float = 8.0) -> None:
        """Ask all jobs to save the end of their newest epoch and to end; cancel those that take longer than `patience_s`."""
        deadline = time.monotonic() + patience_s
        while self.running and time.monotonic() < deadline:
            for running in self.running.values():  # repeatedly: a job that was just starting may have missed it
                self._end(running)
            time.sleep(10 * POLL_S)
            self.checked_at = 0.0
            self._check_jobs()
            self.running = {number: running for number, running in self.running.items() if not running.why}
        for running in self.running.values():
            running.handle.cancel(check=False)  # in a SLURM job, SLURM kills what is left
        self.running = {}

    def _end(self, running: _Running) -> None:
        """Ask a job to end: by scancel, or a process of this machine by SIGTERM."""
        if self.cluster == "slurm":
            running.handle.cancel(check=False)
        else:
            with suppress(ProcessLookupError):
                os.kill(int(running.handle.job_id), signal.SIGTERM)  # submitit would kill it at once
