"""A run in training, as its driver follows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.evidence import Beginning
from harness.queue import Assignment


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
