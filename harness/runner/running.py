"""Runs in training, as their driver follows them, and what becomes of those that are cut off."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.evidence import Beginning
from harness.queue import Assignment
from harness.study import Cell
from harness.training.checkpoints import Checkpoints

MOST_NAMED = 4  # of the trials that were cut off


@dataclass
class Running:
    """A run in training.

    Attributes:
        assignment: the trial that it trains, as the queue gave it.
        start: the epoch that it goes on from.
        logged: the last epoch on record.
        epoch: the newest epoch.
        row: the metrics of the newest epoch.
        beginning: when it began, and from which checkpoint.
        rows: the metrics of all epochs.
    """

    assignment: Assignment
    start: int = 0
    logged: int = 0
    beginning: Beginning = field(default_factory=Beginning)
    rows: dict[int, Mapping[str, float]] = field(default_factory=dict)
    epoch: int = 0
    row: dict[str, float] = field(default_factory=dict)


def name_of(cell: Cell) -> str:
    """Return the name of a trial, for people."""
    return f"{cell.arm} / seed {cell.seed}"


def how_they_go_on(cut_off: Sequence[Running], checkpoints: Checkpoints, images: str) -> Iterator[str]:
    """Yield lines on where the next start goes on with runs that were cut off, whose checkpoints are saved by now.

    Args:
        cut_off: the runs.
        checkpoints: of their trials.
        images: the digest of their data set.
    """
    for trial in cut_off[:MOST_NAMED]:
        cell = trial.assignment.cell
        epoch = checkpoints.newest(cell.spec, images)
        on = f"goes on after epoch {epoch} of {cell.spec.epochs}" if epoch else "starts again: it has no checkpoint yet"
        yield f"  {name_of(cell)} {on}"
    if len(cut_off) > MOST_NAMED:
        yield f"  and {len(cut_off) - MOST_NAMED} more, likewise"
