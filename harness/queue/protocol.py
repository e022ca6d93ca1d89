"""What a driver asks of a queue, and what they hand each other."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from harness.queue.store import TrialStore
from harness.study import Cell

ATTEMPTS = 3  # of a trial that its worker lost
LOST = "its driver ended"

Look = Callable[[str], tuple[str, Mapping[str, float]]]  # a run's status ("" where there is none) and its last metrics


@dataclass(frozen=True)
class Assignment:
    """One run to make.

    Attributes:
        number: of its trial in the store.
        cell: what to train.
        attempt: which one this is, from 1.
        run: the id of an earlier attempt's run, or nothing.
        part: which of the trial's seeds this is.
    """

    number: int
    cell: Cell
    attempt: int
    run: str = ""
    part: int = 0


class Repairs(NamedTuple):
    """What `reconcile` found: trials whose finished run was taken over, and trials that were cut off."""

    adopted: int
    lost: int


class Outcome(NamedTuple):
    """What the end of a run comes to.

    Attributes:
        counted: whether the trial was still this driver's, so that its end counts.
        retried: whether it waits to be tried again.
        skipped: further runs that are not needed any more, since their trial is pruned or has failed.
    """

    counted: bool = True
    retried: bool = False
    skipped: int = 0


class Pruning(Protocol):
    """How a queue ends hopeless trials early."""

    def report(self, assignment: Assignment, epoch: int, row: Mapping[str, float]) -> bool:
        """Take an epoch's scores and return whether the trial is to be pruned."""

    def pruned(self, assignment: Assignment) -> Outcome:
        """Take note that the run of a trial that `report` judged hopeless has ended."""


class TrialQueue(Protocol):
    """The trials of a study that are to be run, and what came of them.

    A queue is driven by one driver; drivers that share a store each have a queue of their own over it. Assignments come from `take`
    and end in exactly one of `complete`, `fail` and `pruning.pruned`, or are handed back by `release`.
    """

    store: TrialStore
    epochs: int  # of the longest trial

    @property
    def trials(self) -> int:
        """Results to come in all."""

    @property
    def missing(self) -> int:
        """Results still to come."""

    @property
    def pruning(self) -> Pruning | None:
        """How trials are ended early by their epochs' scores; None where they never are."""

    def prepare(self) -> None:
        """Queue what is neither done, under way nor given up. Call after `reconcile`."""

    def take(self, most: int, alike: Callable[[Cell], Hashable]) -> list[Assignment]:
        """Return the next runs that train together, at most `most` of equal `alike`; none where nothing waits."""

    def note_run(self, assignment: Assignment, run: str) -> None:
        """Remember the id of a trial's run before it trains."""

    def complete(self, assignment: Assignment, metrics: Mapping[str, float]) -> Outcome:
        """Take a run's scores. Call when the run is FINISHED, so that a kill in between can be repaired."""

    def fail(self, assignment: Assignment, why: str, *, final: bool) -> Outcome:
        """Take a run's failure. It is tried again, the reason kept, unless it is final or the attempts are used up."""

    def busy(self) -> bool:
        """Return whether something may still come though this driver has no run in training."""

    def release(self, look: Look) -> None:
        """Let what this driver works on wait again, for it was told to stop; a run that had just finished counts."""

    def reconcile(self, look: Look, finished: set[str]) -> Repairs:
        """Settle what dead drivers left: take over finished runs, let the rest wait again. `finished`: ids of all FINISHED runs."""

    def runs(self) -> set[str]:
        """Return the ids of runs that trials name and that may be FINISHED or RUNNING; any other is nobody's."""

    def live_runs(self) -> set[str]:
        """Return the ids of runs that somebody works on."""
