"""The data that executors take and return: jobs, which are trials of one program, and events, which report on them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from harness.spec import Result, TrialSpec

if TYPE_CHECKING:
    from harness.training.step import Execution  # with torch, which a driver that finds nothing to train does without


@dataclass(frozen=True)
class Job:
    """Trials of one program, trained together.

    Attributes:
        specs: the trials.
        start: the number of epochs that the checkpoints of all of them have; 0 to train from the beginning.
        execution: how their steps are taken.
        part: what is done of it: all; `train`, which ends each trial with `Trained` once the checkpoint of its last epoch is saved;
            or `evaluate`, which goes on from these.
        draw_all_figures: the ids of the trials to draw all figures of.
        waits_for_pruning: True if the job waits after every epoch to be told which trials to prune, so that a pruned trial takes no
            further step.
        images: the digest of the data set that the study has, which that of whoever trains must have too; empty for any.
    """

    specs: tuple[TrialSpec, ...]
    start: int = 0
    execution: "Execution" = "eager"
    part: Literal["all", "train", "evaluate"] = "all"
    draw_all_figures: frozenset[str] = frozenset()
    waits_for_pruning: bool = False
    images: str = ""


@dataclass(frozen=True)
class OutputDirs:
    """The folders that workers write to.

    Attributes:
        scratch: the folder of results' files, in <spec id>/.
        checkpoints: the folder of checkpoints, in <spec id>/.
    """

    scratch: Path
    checkpoints: Path


@dataclass(frozen=True)
class Epoch:
    """The event that a trial (`spec` is its id) finished an epoch, counted from 1; `row` has the epoch's numbers by metric key.

    It is the `last` of an epoch if the other trials that train together have reported theirs; trials may be pruned then.
    """

    spec: str
    epoch: int
    row: dict[str, float]
    last: bool = False


@dataclass(frozen=True)
class Finished:
    """The event that a trial is done, with its scores and the folder of its files."""

    spec: str
    result: Result
    files: Path


@dataclass(frozen=True)
class Failed:
    """The event that a trial failed, with the reason `why`.

    `final` is True if trying again would fail again. `data` is True if it lacks its data or has others than the study, `full`
    if the disk is full: any trial would fail by that.
    """

    spec: str
    why: str
    final: bool
    data: bool = False
    full: bool = False


@dataclass(frozen=True)
class Pruned:
    """The event that a trial was ended at the end of an epoch, as `Executor.prune` had asked."""

    spec: str


@dataclass(frozen=True)
class Trained:
    """The event that a trial is trained and waits for its evaluation, of a job of which no more than that was asked."""

    spec: str


@dataclass(frozen=True)
class Notice:
    """The event of something that people should know about the training of a trial, in words, such as a compiler that failed."""

    spec: str
    words: str


Event = Epoch | Finished | Failed | Pruned | Trained | Notice


def ends_trial(event: Event) -> bool:
    """Return whether nothing more comes of the event's trial from this job."""
    return not isinstance(event, Epoch | Notice)


class Executor(Protocol):
    """A pool of workers that takes jobs and yields events.

    Every trial of a job ends in exactly one event, `Finished`, `Failed` or `Pruned`. Events of workers that an executor deals with
    itself, such as `Trained`, do not come out.

    Attributes:
        most_evaluators: the processes that evaluate beside the workers; 0 if these evaluate what they have trained.
    """

    most_evaluators: int

    def free(self) -> int:
        """Return the number of jobs that would start at once."""

    def submit(self, job: Job) -> None:
        """Start a job. Call it only if `free` is not 0."""

    def events(self) -> Iterator[Event]:
        """Yield the events since the last call; while jobs are running, wait for the first one."""

    def prune(self, ids: Collection[str]) -> None:
        """End these trials, by id, at the end of an epoch.

        For a job that waits for pruning it is the epoch that was just reported, if this is called before `events` is called again;
        for others it is the next one.
        """

    def close(self, patience_s: float = 8.0) -> None:
        """End all work. Workers first save the end of their newest epoch as a checkpoint; those that take longer are killed."""
