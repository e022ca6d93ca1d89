"""The protocol of a tracker: what a driver needs of the place where its runs are recorded."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.spec import Result, TrialSpec

# The file of a run that says all that was known of its making, and the tag that has its sha256 (harness/evidence).
MANIFEST, MANIFEST_TAG = "manifest.json", "manifest.sha256"


@dataclass(frozen=True)
class Record:
    """A finished run, as it is recorded.

    Attributes:
        run: its id.
        metrics: the last value of each metric.
        tags: its tags.
    """

    run: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


class Tracker(Protocol):
    """The place where runs are recorded. A trial's run is begun, logged after every epoch, and then finished or failed."""

    def begin(self, spec: TrialSpec, arm: str, trial: int, attempt: int, origin: Mapping[str, str]) -> str:
        """Open a run for a trial and return its id. The tags `origin` say on which device and on which data it runs."""

    def log(self, run: str, step: int, row: Mapping[str, float]) -> None:
        """Record the metrics of an epoch."""

    def recorded(self, run: str) -> Record:
        """Return what is on record of a run that may not have finished."""

    def finish(self, run: str, result: Result, files: Path) -> None:
        """Record final scores and files, and the digest of the manifest that is among them, then mark the run as FINISHED.

        That mark is the commit: everything that is written after it may be lost without harm.
        """

    def fail(self, run: str, why: str, *, killed: bool = False) -> None:
        """Close a run as FAILED, or as KILLED if its process has ended."""

    def prune(self, run: str, epoch: int) -> None:
        """Close the run of a trial that was pruned after this epoch."""

    def reopen(self, run: str) -> int | None:
        """Mark a run as RUNNING again.

        Returns:
            The last epoch on record, or None if there is no such run or it has finished.
        """

    def look(self, run: str) -> tuple[str, Mapping[str, float]]:
        """Return a run's status and last metrics; an empty status if there is no such run."""

    def finished_runs(self, store: str) -> set[str]:
        """Return the ids of the FINISHED runs of a trial store."""

    def close_orphans(self, store: str, keep: set[str], older_than_s: float) -> int:
        """Mark the runs of a trial store that are still RUNNING as KILLED and return their number.

        Runs in `keep` and runs younger than `older_than_s` seconds are left alone.
        """

    def results(self, runs: Mapping[str, str]) -> dict[str, Record]:
        """Return the records by cell id, for run ids by cell id."""

    def file(self, run: str, name: str) -> Path:
        """Return the path of a local copy of one of a run's files."""

    def reopen_study(self) -> None:
        """Mark the parent run as RUNNING, which it is while its driver runs."""

    def stop_study(self) -> None:
        """Mark the parent run as KILLED, because its driver was asked to stop. It remains so until the study is started again."""

    def run_path(self, run: str) -> str:
        """Return the path of a run's page in the UI of runs."""

    def study_tag(self, key: str) -> str | None:
        """Return a tag of the parent run, as an earlier report has written it; None if there is none."""

    @property
    def pages(self) -> Mapping[str, str]:
        """The paths of the study's pages in the UI of runs, by what they show."""

    def log_model(self, programs: Path, example: Any, latent: int) -> str:
        """Save a winner in the parent run as a model that loads without pickle and without this package, and return its URI.

        Args:
            programs: the folder of its exported programs.
            example: images as floats on [0, 1], a tensor (N, P).
            latent: the number of latents.
        """

    def plan_on_record(self) -> tuple[str, str]:
        """Return the digest and the text of the plan that the parent run keeps; empty texts if it keeps none."""

    def keep_plan(self, digest: str, text: str) -> None:
        """Keep a plan in the parent run."""

    def supersede(self, store: str, cells: Collection[str], by: str) -> None:
        """Tag the runs of a trial store: those of `cells`, which the present plan has, as counted, the others as superseded."""

    def finish_study(self, files: Path, summary: Mapping[str, str], note: str) -> None:
        """Put the report's files, tags and text into the parent run and mark it as FINISHED."""
