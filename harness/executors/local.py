"""Training in this process."""

from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass, field

from harness.checkpoints import Checkpoints
from harness.executors.jobs import Event, Job, Places
from harness.executors.training import train


@dataclass
class InProcess:
    """One job at a time. It trains while its events are read, and no further."""

    places: Places
    device: str = "cpu"
    dropped: set[str] = field(default_factory=set)
    training: Generator[Event] | None = None

    def free(self) -> int:
        return int(self.training is None)

    def submit(self, job: Job) -> None:
        self.dropped = set()
        self.training = train(job, self.device, self.places.scratch, Checkpoints(self.places.checkpoints), self.dropped)

    def events(self) -> Iterator[Event]:
        training = self.training
        if training is not None:
            while (event := next(training, None)) is not None:  # `yield from` would close it when its reader leaves early
                yield event
            self.training = None

    def drop(self, ids: Collection[str]) -> None:
        self.dropped.update(ids)

    def close(self, patience_s: float = 8.0) -> None:
        if self.training is not None:
            self.training.close()
            self.training = None
