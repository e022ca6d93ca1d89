"""In SLURM jobs, through submitit. All there is to say goes through a file system that all nodes share (slurm_job.py)."""

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
from harness.executors.jobs import Epoch, Event, Failed, Job, OutputDirs
from harness.executors.slurm.job import COMMAND, EVENTS, STOPPED, from_line, work

CLUSTERS = ("slurm", "local")
MINUTES = 240  # that a job may take, unless SBATCH_TIMELIMIT says otherwise; what is not done by then goes on in another
WARNING_S = 60  # before that, SLURM sends the signal to stop: ample for checkpoints on a slow file system
POLL_S = 0.1
LOOK_S = 10.0  # between two questions to SLURM which jobs are there
OVER = {
    *("GONE", "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED"),
    *("TIMEOUT", "INTERRUPTED", "FINISHED", "NO PROCESS AND NO RESULT"),
}
LATE_S = 5.0  # a job's last lines may be seen so much later than its end


@dataclass
class _Running:
    """A job: submitit's handle, its folder, the trials whose end was not told, and how much of what it tells was dealt with."""

    job: Job
    handle: Any
    folder: Path
    left: set[str]
    read: int = 0  # bytes
    dealt: int = 0  # lines
    prune: set[str] = field(default_factory=set)
    why: str = ""  # it is over, and since when
    since: float = 0.0

    def lines(self) -> Iterator[dict[str, Any]]:
        """Whole lines that have come since."""
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(self.read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.read += len(line)
                self.dealt += 1
                yield json.loads(line)

    def send_command(self) -> None:
        """Tell the job what was dealt with, and what to prune."""
        beside = self.folder / f"{COMMAND}.new"
        beside.write_text(json.dumps({"dealt": self.dealt, "prune": sorted(self.prune)}))
        beside.replace(self.folder / COMMAND)


class Slurm:
    """A SLURM job per job, as many at once as devices has entries, each with a CPU and, where the first of these is one, a GPU.

    HARNESS_SLURM_CLUSTER=local runs them as processes of this machine instead. What SLURM is to give them is said in sbatch's own
    variables: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT, ... SLURM is told to start none again: the driver does.

    Raises:
        UserError, MachineError: no such cluster, no SLURM here.
    """

    def __init__(self, workers: Sequence[str], dirs: OutputDirs) -> None:
        self.cluster = os.environ.get("HARNESS_SLURM_CLUSTER") or "slurm"
        if self.cluster not in CLUSTERS:
            raise UserError(f"unknown HARNESS_SLURM_CLUSTER={self.cluster}\nknown: {', '.join(CLUSTERS)}")
        if self.cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise MachineError(
                "no sbatch here: start the study on a node that may submit SLURM jobs\n"
                "to run the jobs as processes of this machine: HARNESS_SLURM_CLUSTER=local"
            )
        self.most, self.dirs = len(workers), dirs
        self.device = workers[0].partition(":")[0]
        self.folder = dirs.scratch / "jobs"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.running: dict[int, _Running] = {}
        self.numbers, self.code = 0, provenance.code()
        self.looked = 0.0
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
        return self.most - len(self.running)

    def submit(self, job: Job) -> None:
        self.numbers += 1
        folder = self.folder / f"{self.numbers}"
        folder.mkdir()
        (folder / EVENTS).touch()
        running = _Running(job, None, folder, {s.id for s in job.specs})
        running.send_command()
        try:
            running.handle = self.submitit.submit(work, job, self.device, folder, self.dirs, self.code)
        except (submitit.core.utils.FailedJobError, subprocess.SubprocessError) as fault:
            raise MachineError(f"sbatch refuses the job: {str(fault).strip().splitlines()[-1]}") from None
        self.running[self.numbers] = running

    def events(self) -> Iterator[Event]:
        for running in self.running.values():  # what they told has been heeded
            if running.job.waits_for_pruning:
                running.send_command()
        happened = False
        while self.running and not happened:
            self._look()
            for number, running in list(self.running.items()):
                for event in self._news(running):
                    happened = True
                    if not running.left:
                        self.running.pop(number, None)
                    yield event
                if running.left and running.why and time.monotonic() > running.since + LATE_S:
                    happened = True
                    del self.running[number]
                    yield from (Failed(spec, running.why, final=False) for spec in running.left)
            if not happened:
                time.sleep(POLL_S)

    def _news(self, running: _Running) -> Iterator[Event]:
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
            if not isinstance(event, Epoch):
                running.left.discard(event.spec)
            yield event

    def _name(self, running: _Running) -> str:
        return f"SLURM job {running.handle.job_id}" if self.cluster == "slurm" else f"job process {running.handle.job_id}"

    def _look(self) -> None:
        """Notice which jobs are over."""
        if self.cluster == "slurm" and time.monotonic() < self.looked + LOOK_S:
            return
        self.looked = time.monotonic()
        states = self._states()
        if states is None:
            return
        for running in self.running.values():
            state = states.get(running.handle.job_id, "GONE")
            if not running.why and state in OVER:
                said = state.lower().replace("_", " ")
                running.why, running.since = f"its {self._name(running)} ended without a word ({said})", self.looked

    def _states(self) -> dict[str, str] | None:
        """The states of all jobs by id, or None where SLURM does not answer.

        Asked of squeue, for sacct, which submitit asks, is there on some clusters only.
        """
        if self.cluster == "local":
            return {r.handle.job_id: r.handle.state for r in self.running.values()}
        command = ["squeue", "--me", "--noheader", "--states=all", "--format=%i %T"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        return dict(line.split() for line in asked.stdout.splitlines()) if asked.returncode == 0 else None

    def prune(self, ids: Collection[str]) -> None:
        for running in self.running.values():
            running.prune |= running.left & set(ids)
            if not running.job.waits_for_pruning:
                running.send_command()

    def close(self, patience_s: float = 8.0) -> None:
        until = time.monotonic() + patience_s
        while self.running and time.monotonic() < until:
            for running in self.running.values():  # again and again, for one that was just starting may not have heard
                self._end(running)
            time.sleep(10 * POLL_S)
            self.looked = 0.0
            self._look()
            self.running = {number: running for number, running in self.running.items() if not running.why}
        for running in self.running.values():
            running.handle.cancel(check=False)  # in a SLURM job, SLURM kills what is left
        self.running = {}

    def _end(self, running: _Running) -> None:
        if self.cluster == "slurm":
            running.handle.cancel(check=False)
        else:
            with suppress(ProcessLookupError):
                os.kill(int(running.handle.job_id), signal.SIGTERM)  # submitit would kill it at once
