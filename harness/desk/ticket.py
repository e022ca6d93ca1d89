"""What a desk and a driver hand each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from harness.study import Cell

LOST = "its driver ended"

Look = Callable[[str], tuple[str, Mapping[str, float]]]  # a run's status ("" where there is none) and its last metrics


@dataclass(frozen=True)
class Ticket:
    """One run to make: its trial's number, its cell, which attempt this is, from 1, and the run of an earlier attempt, if any."""

    number: int
    cell: Cell
    attempt: int
    run: str = ""
    part: int = 0  # which of a trial's seeds


class Repairs(NamedTuple):
    """What `reconcile` found: trials whose finished run was taken over, and trials that were cut off."""

    adopted: int
    lost: int
