"""What the driver does with an executor, and nothing else: submit, submit again what failed, from the newest checkpoint."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from harness.executors import Epoch, Event, Executor, Failed, Finished, Job, OutputDirs
from harness.spec import TrialSpec
from harness.training.checkpoints import Checkpoints


@dataclass
class TinyDriver:
    """events: all that happened. starts: per trial, how many epochs were done when each of its jobs started."""

    executor: Executor
    dirs: OutputDirs
    events: list[Event] = field(default_factory=list)
    starts: dict[str, list[int]] = field(default_factory=dict)

    def run(self, specs: Iterable[TrialSpec], react: Callable[[Event], None] = lambda event: None) -> None:
        """Train each trial in a job of its own until all have ended."""
        waiting, under_way = list(specs), {}
        checkpoints = Checkpoints(self.dirs.checkpoints)
        while True:
            while waiting and self.executor.free():
                spec = waiting.pop(0)
                under_way[spec.id] = spec
                start = checkpoints.newest(spec)
                self.starts.setdefault(spec.id, []).append(start)
                self.executor.submit(Job((spec,), start))
            if not under_way:
                return
            for event in self.executor.events():
                self.events.append(event)
                react(event)
                if isinstance(event, Failed) and not event.final:
                    waiting.append(under_way.pop(event.spec))
                elif not isinstance(event, Epoch):
                    del under_way[event.spec]

    def ended(self, kind: type) -> list[str]:
        """The trials that ended so, as often as they did."""
        return [e.spec for e in self.events if isinstance(e, kind)]

    def weights(self, spec: TrialSpec) -> str:
        """SHA-256 of a finished trial's weights."""
        return weights_of(next(e for e in self.events if isinstance(e, Finished) and e.spec == spec.id))


def weights_of(event: Finished) -> str:
    state = torch.load(event.files / "state_dict.pt", weights_only=True)
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in state.values())).hexdigest()
