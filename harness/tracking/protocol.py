"""What a driver asks of whatever keeps its runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.spec import Result, TrialSpec


@dataclass(frozen=True)
class Record:
    """A finished run as it stands on record: its id, its last metrics, its tags."""

    run: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


class Tracker(Protocol):
    """Where runs are recorded. A trial's life is begin, log per epoch, then finish or fail."""

    def begin(self, spec: TrialSpec, arm: str, trial: int, attempt: int, origin: Mapping[str, str]) -> str:
        """Open a run for a trial and return its id. `origin`: tags that say where it runs and on which data."""

    def log(self, run: str, step: int, row: Mapping[str, float]) -> None:
        """Record an epoch."""

    def finish(self, run: str, result: Result, files: Path) -> None:
        """Record final scores and files, then FINISHED, the commit: what follows it may be lost without harm."""

    def fail(self, run: str, why: str, *, killed: bool = False) -> None:
        """Close a run as FAILED, or KILLED where its process ended."""

    def prune(self, run: str, epoch: int) -> None:
        """Close the run of a trial that was pruned after this epoch."""

    def reopen(self, run: str) -> int | None:
        """RUNNING again; returns the last epoch on record, or None where there is no such run to go on with."""

    def look(self, run: str) -> tuple[str, Mapping[str, float]]:
        """A run's status and last metrics; no status where there is no such run."""

    def finished_runs(self, store: str) -> set[str]:
        """Runs of a ledger that are FINISHED."""

    def close_orphans(self, store: str, keep: set[str], older_than_s: float) -> int:
        """Mark runs of a ledger still RUNNING, but for those in `keep` and younger ones, as KILLED; returns how many."""

    def results(self, runs: Mapping[str, str]) -> dict[str, Record]:
        """Records by cell id, for cells and their run ids."""

    def file(self, run: str, name: str) -> Path:
        """A local copy of one of a run's files."""

    def reopen_study(self) -> None:
        """The parent run is RUNNING while its driver is."""

    def stop_study(self) -> None:
        """The driver was told to stop: the parent is KILLED until the study is started again."""

    def study_tag(self, key: str) -> str | None:
        """A tag of the parent run, as an earlier report left it."""

    def log_model(self, module: Any, example: Any, requirements: list[str]) -> str:
        """Keep a torch module in the parent run as a model that loads without pickle. Returns its URI."""

    def finish_study(self, files: Path, summary: Mapping[str, str]) -> None:
        """Put the report's files and tags into the parent run and close it as FINISHED."""
