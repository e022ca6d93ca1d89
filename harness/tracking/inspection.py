"""All that MLflow holds of a study, for those that check it. A SQLite file is read from a copy, so that nothing is written."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from harness.errors import UserError, unknown
from harness.stores import addresses, databases, files
from harness.tracking import library
from harness.tracking.absent import refuse_deleted
from harness.tracking.beside import beside
from harness.tracking.description import NOTE
from harness.tracking.parent import VERDICT_TAG
from harness.tracking.protocol import Record
from harness.tracking.reading import readable
from harness.tracking.relocation import relocate
from harness.tracking.store import OLDEST_FIRST, PAGE, experiment_name, store_uri


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """A run as it stands in the store.

    Attributes:
        record: its id, last metrics and tags.
        params: its parameters.
        status: its status; `deleted` if it was deleted.
        files: the URI of the folder of its files.
    """

    record: Record
    params: dict[str, str]
    status: str
    files: str

    @property
    def run(self) -> str:
        """Its id."""
        return self.record.run

    @property
    def name(self) -> str:
        """What people call it."""
        tags = self.record.tags
        return f"{tags.get('arm', '?')} / seed {tags.get('seed', '?')}"

    @property
    def tags(self) -> dict[str, str]:
        """Its tags without MLflow's own."""
        return {k: v for k, v in self.record.tags.items() if not k.startswith("mlflow.")}

    @property
    def verdicts(self) -> dict[str, str]:
        """Of a parent run the tags of its verdicts: `verdict.1` and so on."""
        return {k: v for k, v in self.tags.items() if k.startswith(VERDICT_TAG)}

    @property
    def note(self) -> str:
        """The text that describes it."""
        return self.record.tags.get(NOTE, "")


@dataclass(frozen=True)
class Inspection:
    """A tracking store that is open for reading.

    Attributes:
        client: MLflow's client of it.
    """

    client: Any

    def run(self, run: str) -> Inspected:
        """Return a run of a trial by its id.

        Raises:
            UserError: there is none.
        """
        try:
            found = _inspected(self.client.get_run(run))
        except library.failures() as fault:
            if not library.is_missing(fault):
                raise
            raise UserError(f"no run {run!r} in the tracking store {databases.redacted(store_uri())}") from None
        if found.tags.get("kind") != "trial":
            raise UserError(f"run {run!r} is no run of a trial: its kind is {found.tags.get('kind', 'unknown')!r}")
        return found

    def runs(self, study: str, budget: str) -> tuple[list[Inspected], list[Inspected]]:
        """Return the runs of the trials of a study and budget, deleted ones included, and its parent runs, the oldest first.

        Raises:
            UserError: no such study and budget is on record.
            MachineError: its experiment was deleted in MLflow.
        """
        name = experiment_name(study, budget)
        known = {e.name: e.experiment_id for e in self.client.search_experiments()}
        if name not in known:
            deleted = self.client.get_experiment_by_name(name)
            if deleted is not None:
                refuse_deleted(deleted)
            if others := beside(study, budget):
                raise UserError(f"no trial of {study} ({budget} budget) is on record{others}")
            raise unknown("study on record", name, sorted({*known} - {"Default"}))  # MLflow's own
        found: list[Inspected] = []
        token: str | None = ""
        while token is not None:
            page = self.client.search_runs(
                [known[name]], "", library.mlflow().entities.ViewType.ALL, PAGE, OLDEST_FIRST, page_token=token or None
            )
            found += map(_inspected, page)
            token = page.token or None
        kinds = {kind: [r for r in found if r.tags.get("kind") == kind] for kind in ("trial", "study")}
        return kinds["trial"], kinds["study"]

    def note(self, study: str, budget: str) -> str:
        """Return the text above the experiment of a study and budget; empty if it has none."""
        experiment = self.client.get_experiment_by_name(experiment_name(study, budget))
        return str(experiment.tags.get(NOTE, "")) if experiment else ""

    def history(self, run: str, key: str) -> dict[int, list[float]]:
        """Return all values of a metric by step."""
        values: dict[int, list[float]] = {}
        for point in self.client.get_metric_history(run, key):
            values.setdefault(point.step, []).append(point.value)
        return values

    @contextmanager
    def folder(self, run: Inspected) -> Iterator[Path]:
        """Open the folder of a run's files: itself if it is on this machine, else a copy that is deleted at the end."""
        address = urlparse(run.files)
        if address.scheme in ("", "file"):
            yield Path(unquote(address.path))
            return
        with tempfile.TemporaryDirectory(prefix="harness-") as copy:
            for file in self.client.list_artifacts(run.run):
                self.client.download_artifacts(run.run, file.path, copy)
            yield Path(copy)


def _inspected(run: Any) -> Inspected:
    """Return MLflow's run as ours."""
    status = run.info.status if run.info.lifecycle_stage == "active" else "deleted"
    return Inspected(
        record=Record(run.info.run_id, run.data.metrics, run.data.tags),
        params=dict(run.data.params),
        status=status,
        files=run.info.artifact_uri,
    )


@contextmanager
def inspection() -> Iterator[Inspection]:
    """Open the tracking store for reading only.

    Raises:
        UserError: there is no store yet.
        MachineError: it cannot be read.
    """
    uri = store_uri()
    with tempfile.TemporaryDirectory(prefix="harness-") as folder, readable():
        path = addresses.sqlite_path(uri)
        if path is not None:
            if not path.exists():
                raise UserError(f"nothing is on record: there is no {path}")
            copy = files.snapshot(path, Path(folder))
            relocate(copy)
            uri = addresses.sqlite_uri(copy)
        yield Inspection(library.mlflow().MlflowClient(tracking_uri=uri))
