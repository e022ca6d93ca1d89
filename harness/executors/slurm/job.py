"""The program of a SLURM job, which trains one `Job` and exchanges messages with the driver in a folder that both see.

events.jsonl    the job's events, one per line; it writes results' files and checkpoints to their folders itself
command.json    the driver's command: how many lines it has handled, and which trials to prune
"""

import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import devices, provenance
from harness.executors.interrupts import INTERRUPTS, Stop
from harness.executors.jobs import Epoch, Event, Failed, Finished, Job, Notice, OutputDirs, Pruned, ends_trial
from harness.executors.remote import ONE_THREAD
from harness.executors.training import DeviceLostError, train
from harness.spec import Result, TrialSpec
from harness.training.checkpoints import Checkpoints

EVENTS, COMMAND = "events.jsonl", "command.json"
STOPPED = {"stopped": True}  # the last line of a job that was asked to end
COMMAND_POLL_S = 0.05  # between two readings of the command
ALONE_S = 600.0  # a driver that handles nothing for so long is taken for dead


def work(job: Job, device: str, folder: Path, dirs: OutputDirs, code: str) -> None:
    """Run a SLURM job. SIGTERM (preempted, cancelled) and SIGUSR2 (nearly out of time) end it, with a checkpoint.

    It trains with the driver's code only, given by its digest `code`: hours may lie between submission and start.
    """
    INTERRUPTS.listen()
    signal.signal(signal.SIGUSR2, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    os.environ.update(ONE_THREAD)
    devices.one_thread()
    channel = _Channel(folder)
    if provenance.code() != code:
        channel.write({"code": provenance.code()})
        return
    left = {s.id for s in job.specs}
    try:
        with closing(train(job, device, dirs.scratch, Checkpoints(dirs.checkpoints), channel.pruned)) as events:
            for event in events:
                channel.write(as_line(event))
                if ends_trial(event):
                    left.discard(event.spec)
                if isinstance(event, Epoch) and event.last:
                    channel.await_command(wait=job.waits_for_pruning)
    except DeviceLostError as fault:  # the next job may get another GPU, and is another process in any case
        for trial in left:
            channel.write(as_line(Failed(trial, str(fault).partition("\n")[0], final=False)))
    except Stop:
        channel.write(STOPPED)


class _Channel:
    """The job's side of its folder. Once that is removed another driver has taken over, and the job ends with OSError.

    Attributes:
        folder: the folder.
        written: the number of lines that were written.
        pruned: the ids of the trials to prune.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written = 0
        self.pruned: set[str] = set()

    def write(self, content: Mapping[str, Any]) -> None:
        """Add a line to the events."""
        with (self.folder / EVENTS).open("r+") as file:  # closed after each line, so that other machines see it
            file.seek(0, os.SEEK_END)
            file.write(json.dumps(content) + "\n")
        self.written += 1

    def await_command(self, wait: bool) -> None:
        """Read which trials to prune. If `wait`, wait until the driver has handled all lines.

        Raises:
            Stop: the process was asked to end, or the driver handled nothing for ALONE_S.
        """
        deadline = time.monotonic() + ALONE_S
        with INTERRUPTS.cutting_short():
            while (command := json.loads((self.folder / COMMAND).read_bytes()))["dealt"] < self.written and wait:
                if time.monotonic() > deadline:
                    raise Stop
                time.sleep(COMMAND_POLL_S)
        self.pruned.update(command["prune"])


def as_line(event: Event) -> dict[str, Any]:
    """Return an event as the content of a line, without the spec and the files' folder of a result, which the driver knows."""
    if isinstance(event, Finished):
        return {"event": "Finished", "spec": event.spec, "metrics": dict(event.result.metrics)}
    return {"event": type(event).__name__} | asdict(event)


def from_line(line: Mapping[str, Any], specs: Mapping[str, TrialSpec], dirs: OutputDirs) -> Event:
    """Return the event of a line that `as_line` made.

    >>> from_line(as_line(Epoch("abc", 3, {"elbo/train": 0.1})), {}, OutputDirs(Path(), Path()))
    Epoch(spec='abc', epoch=3, row={'elbo/train': 0.1}, last=False)
    """
    fields = dict(line)
    kind, trial = fields.pop("event"), fields["spec"]
    if kind == "Finished":
        return Finished(trial, Result(specs[trial], fields["metrics"]), dirs.scratch / trial)
    return {k.__name__: k for k in (Epoch, Failed, Notice, Pruned)}[kind](**fields)
