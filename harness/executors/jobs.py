"""What executors are given and what they tell, as data: a job is trials of one program, and all that happens to it are events."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.spec import Result, TrialSpec


@dataclass(frozen=True)
class Job:
    """Trials of one program, trained together.

    start: epochs that are done according to the checkpoints of all of them; 0 is from the beginning.
    compiled: whether their step is one program. pictured: ids of those to draw all figures of.
    heeded: after every epoch wait to hear which trials to prune, so that a pruned trial takes no step more.
    """

    specs: tuple[TrialSpec, ...]
    start: int = 0
    compiled: bool = False
    draw_all_figures: frozenset[str] = frozenset()
    waits_for_pruning: bool = False


@dataclass(frozen=True)
class OutputDirs:
    """Where workers write: results' files in scratch/<spec id>, checkpoints in checkpoints/<spec id>."""

    scratch: Path
    checkpoints: Path


@dataclass(frozen=True)
class Epoch:
    """A trial finished an epoch (counted from 1); `row` is what it shows."""

    spec: str
    epoch: int
    row: dict[str, float]


@dataclass(frozen=True)
class Finished:
    """A trial is done: its scores, and the folder with its files."""

    spec: str
    result: Result
    files: Path


@dataclass(frozen=True)
class Failed:
    """A trial has no result. `final`: trying again would fail again."""

    spec: str
    why: str
    final: bool


@dataclass(frozen=True)
class Pruned:
    """A trial was ended at an epoch border, as asked."""

    spec: str


Event = Epoch | Finished | Failed | Pruned


class Executor(Protocol):
    """Takes jobs while it has a free place, and yields what happens. Every trial of a job ends in one event other than `Epoch`."""

    def free(self) -> int:
        """Jobs that would start at once."""

    def submit(self, job: Job) -> None:
        """Start a job."""

    def events(self) -> Iterator[Event]:
        """What has happened; waits for the first thing to happen while jobs are running."""

    def prune(self, ids: Collection[str]) -> None:
        """End these trials at their next epoch border. For a heeded job, said before `events` is called again, that is this one."""

    def close(self, patience_s: float = 8.0) -> None:
        """End all work: workers write their newest epoch border as a checkpoint first, and are killed when that takes longer."""
