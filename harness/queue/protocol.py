"""The interface between a driver and a queue, and the values that they exchange."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from harness.queue.store import TrialStore
from harness.study import Cell

ATTEMPTS = 3  # at a trial that its worker loses; those that went with their driver do not count
LOST = "its driver ended"

# Maps a run's id to its status (empty if there is no such run) and its last metrics.
LookUpRun = Callable[[str], tuple[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Assignment:
    """One run for the driver to make.

    Attributes:
        number: the number of its trial in the store.
        cell: the arm, seed and spec to train.
        attempt: the number of this start of the trial, from 1, whatever ended the earlier ones.
        run: the id of an earlier attempt's run; empty if there is none.
        part: the index of the run's seed among the trial's seeds.
    """

    number: int
    cell: Cell
    attempt: int
    run: str = ""
    part: int = 0


class Repairs(NamedTuple):
    """The result of `reconcile`.

    Attributes:
        adopted: the number of finished runs of dead drivers that were taken over.
        lost: the number of trials or runs that were cut off.
    """

    adopted: int
    lost: int


class Outcome(NamedTuple):
    """The effect of a run's end on the queue.

    Attributes:
        counted: True if the trial was still this driver's, so that its end counts.
        retried: True if the trial waits to be tried again.
        skipped: the number of further runs that are not needed any more because their trial is pruned or has failed.
    """

    counted: bool = True
    retried: bool = False
    skipped: int = 0


class Pruning(Protocol):
    """The part of a queue that ends hopeless trials early."""

    def report(self, assignment: Assignment, epoch: int, row: Mapping[str, float]) -> bool:
        """Take an epoch's scores and return whether the trial is to be pruned."""

    def pruned(self, assignment: Assignment) -> Outcome:
        """Record that the run of a trial has ended, which `report` had judged hopeless."""


class TrialQueue(Protocol):
    """The trials of a study that are to be run, and their results.

    A queue belongs to one driver; drivers that share a store each have a queue of their own over it. Assignments come from `take`
    and end in exactly one of `complete`, `fail` and `pruning.pruned`, or in `release`, which ends all of them.

    Attributes:
        store: the trials.
        epochs: the epochs of the longest trial.
        read_back: how many results were read back from MLflow since this was last set to 0.
    """

    store: TrialStore
    epochs: int
    read_back: int

    @property
    def trials(self) -> int:
        """The number of results when the study is complete."""

    @property
    def missing(self) -> int:
        """The number of results still to come."""

    @property
    def pruning(self) -> Pruning | None:
        """The judge of trials by their epochs' scores; None if no trial is ever ended early by these."""

    def coming(self) -> list[Cell]:
        """Return the cells of the results still to come, in order; those of points that are not asked for yet are not known."""

    def prepare(self) -> None:
        """Queue every trial that is neither done, under way nor given up. Call it after `reconcile`."""

    def take(self, most: int, alike: Callable[[Cell], Hashable]) -> list[Assignment]:
        """Return the next runs that train together, at most `most` of equal `alike`; an empty list if none is waiting."""

    def note_run(self, assignment: Assignment, run: str) -> None:
        """Store the id of a trial's run, before the trial trains."""

    def note_manifest(self, assignment: Assignment, digest: str) -> None:
        """Store the digest of the manifest of a trial's run, before the run is FINISHED: one store alone cannot be changed then."""

    def complete(self, assignment: Assignment, metrics: Mapping[str, float]) -> Outcome:
        """Take a run's scores. Call it once the run is FINISHED, so that a kill in between can be repaired."""

    def fail(self, assignment: Assignment, why: str, *, final: bool) -> Outcome:
        """Take a run's failure. The run is tried again, with the reason stored, unless it is final or the attempts are used up."""

    def busy(self) -> bool:
        """Return whether results or runs may still come though this driver has no run in training."""

    def release(self, look_up: LookUpRun) -> None:
        """Make this driver's trials wait again because it was told to stop; runs that are FINISHED count."""

    def reconcile(self, look_up: LookUpRun, finished: set[str]) -> Repairs:
        """Settle the trials of dead drivers: take over their finished runs and make the others wait again.

        `finished` are the ids of all FINISHED runs.
        """

    def runs(self) -> set[str]:
        """Return the ids of the runs that trials name and that may be FINISHED or RUNNING; any other run belongs to no trial."""

    def live_runs(self) -> set[str]:
        """Return the ids of the runs of RUNNING trials."""
