"""Training in this process."""

from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass, field

from harness.executors.jobs import Event, Job, OutputDirs
from harness.executors.training import train
from harness.training.checkpoints import Checkpoints


@dataclass
class InProcess:
    """One job at a time. It trains while its events are read, and no further."""

    dirs: OutputDirs
    device: str = "cpu"
    pruned: set[str] = field(default_factory=set)
    training: Generator[Event] | None = None

    def free(self) -> int:
        return int(self.training is None)

    def submit(self, job: Job) -> None:
        self.pruned = set()
        self.training = train(job, self.device, self.dirs.scratch, Checkpoints(self.dirs.checkpoints), self.pruned)

    def events(self) -> Iterator[Event]:
        training = self.training
        if training is not None:
            while (event := next(training, None)) is not None:  # `yield from` would close it when its reader leaves early
                yield event
            self.training = None

    def prune(self, ids: Collection[str]) -> None:
        self.pruned.update(ids)

    def close(self, patience_s: float = 8.0) -> None:
        if self.training is not None:
            self.training.close()
            self.training = None
