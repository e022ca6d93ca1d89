"""Training in this process."""

from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass, field

import torch

from harness import devices
from harness.executors.jobs import Event, Job, OutputDirs
from harness.executors.training import train
from harness.training.checkpoints import Checkpoints


@dataclass
class InProcess:
    """An executor that trains one job at a time in this process, and only while its events are read.

    Attributes:
        dirs: the folders to write to.
        device: the name of the device.
        pruned: the ids of the job's trials to end at the next end of an epoch.
        training: the events of the job in training; None if there is none.
    """

    most_evaluators = 0
    dirs: OutputDirs
    device: str = "cpu"
    pruned: set[str] = field(default_factory=set)
    training: Generator[Event] | None = None

    def __post_init__(self) -> None:
        self._threads = torch.get_num_threads()
        devices.one_thread()  # as in a worker process

    def free(self) -> int:
        """Return 1 if no job is in training, else 0."""
        return int(self.training is None)

    def submit(self, job: Job) -> None:
        """Make a job the next to train; it starts when `events` is called."""
        self.pruned = set()
        self.training = train(job, self.device, self.dirs.scratch, Checkpoints(self.dirs.checkpoints), self.pruned)

    def events(self) -> Iterator[Event]:
        """Train the job and yield its events."""
        training = self.training
        if training is not None:
            while (event := next(training, None)) is not None:  # `yield from` would close the training when the reader stops early
                yield event
            self.training = None

    def prune(self, ids: Collection[str]) -> None:
        """End these trials at the next end of an epoch."""
        self.pruned.update(ids)

    def close(self, patience_s: float = 8.0) -> None:
        """End the job in training, with a checkpoint of the end of its newest epoch."""
        if self.training is not None:
            self.training.close()
            self.training = None
        torch.set_num_threads(self._threads)
