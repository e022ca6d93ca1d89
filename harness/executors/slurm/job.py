"""A SLURM job: trains one job of ours, and talks with the driver through files in a folder that both see.

events.jsonl   what it tells, a line per event; results' files and checkpoints it writes to their dirs itself
command.json    what the driver wants: how many lines it has dealt with, and which trials to prune
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
from harness.executors.jobs import Epoch, Event, Failed, Finished, Job, OutputDirs, Pruned
from harness.executors.remote import ONE_THREAD, epoch_ends
from harness.executors.training import train
from harness.spec import Result, TrialSpec
from harness.training.checkpoints import Checkpoints

EVENTS, COMMAND = "events.jsonl", "command.json"
STOPPED = {"stopped": True}  # the last line of a job that was told to end
COMMAND_POLL_S = 0.05  # between two looks at the command
ALONE_S = 600.0  # a driver that deals with nothing for so long is gone


def work(job: Job, device: str, folder: Path, dirs: OutputDirs, code: str) -> None:
    """A SLURM job's life. SIGTERM (preempted, cancelled) and SIGUSR2 (nearly out of time) end it, with a checkpoint.

    It refuses to train by any other code than the driver's: hours may lie between submission and start.
    """
    INTERRUPTS.listen()
    signal.signal(signal.SIGUSR2, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    os.environ.update(ONE_THREAD)
    devices.one_thread()
    line = _Line(folder)
    if provenance.code() != code:
        line.write({"code": provenance.code()})
        return
    try:
        with closing(train(job, device, dirs.scratch, Checkpoints(dirs.checkpoints), line.pruned)) as events:
            for event, ends_epoch in epoch_ends(job, events):
                line.write(as_line(event))
                if ends_epoch:
                    line.await_command(wait=job.waits_for_pruning)
    except Stop:
        line.write(STOPPED)


class _Line:
    """A job's end of its folder. Once that is removed another driver has taken over, and the job ends with OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = 0
        self.pruned: set[str] = set()

    def write(self, content: Mapping[str, Any]) -> None:
        with (self.folder / EVENTS).open("r+") as file:  # closed after each line, so that other machines see it
            file.seek(0, os.SEEK_END)
            file.write(json.dumps(content) + "\n")
        self.said += 1

    def await_command(self, wait: bool) -> None:
        """Hear which trials to prune; `wait` until the driver has dealt with all that was said."""
        until = time.monotonic() + ALONE_S
        with INTERRUPTS.cutting_short():
            while (command := json.loads((self.folder / COMMAND).read_bytes()))["dealt"] < self.said and wait:
                if time.monotonic() > until:
                    raise Stop
                time.sleep(COMMAND_POLL_S)
        self.pruned.update(command["prune"])


def as_line(event: Event) -> dict[str, Any]:
    """An event as a line. The driver knows the trial's spec and where its files are."""
    if isinstance(event, Finished):
        return {"event": "Finished", "spec": event.spec, "metrics": dict(event.result.metrics)}
    return {"event": type(event).__name__} | asdict(event)


def from_line(line: Mapping[str, Any], specs: Mapping[str, TrialSpec], dirs: OutputDirs) -> Event:
    """The event that `as_line` wrote.

    >>> from_line(as_line(Epoch("abc", 3, {"elbo/train": 0.1})), {}, OutputDirs(Path(), Path()))
    Epoch(spec='abc', epoch=3, row={'elbo/train': 0.1})
    """
    fields = dict(line)
    kind, trial = fields.pop("event"), fields["spec"]
    if kind == "Finished":
        return Finished(trial, Result(specs[trial], fields["metrics"]), dirs.scratch / trial)
    return {k.__name__: k for k in (Epoch, Failed, Pruned)}[kind](**fields)
