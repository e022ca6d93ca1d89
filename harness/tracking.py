"""Runs on record, in MLflow. One experiment per study and budget, a parent run, a child per trial."""

import logging
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_TRUNCATE_LONG_VALUES", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK", "true")

import mlflow
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.db import utils as mlflow_db

from harness import manifest, paths, stores
from harness.errors import MachineError
from harness.shared_view import VIEW_KEY, shared_view
from harness.spec import Result, TrialSpec

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.ERROR)

PAGE = 1_000
TAG_LIMIT = 4_900  # characters; MLflow would refuse more


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

    def finished(self, trial: int) -> tuple[str, Mapping[str, float]] | None:
        """Run id and last metrics of the FINISHED run of a trial, if it has one."""

    def close_orphans(self, keep: set[str]) -> int:
        """Mark runs still RUNNING, but for those in `keep`, as KILLED; returns how many."""

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


def store_uri() -> str:
    """`$MLFLOW_TRACKING_URI`, or the SQLite file in mlruns/: absolute, whatever the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.mlruns() / 'mlflow.db'}"


def experiment_name(study: str, budget: str) -> str:
    """One per study and budget; the default budget's has the study's own name."""
    return study if budget == "default" else f"{study}-{budget}"


def study_page(experiment_id: str) -> str:
    """The path of an experiment in the MLflow UI, arranged as charts by arm."""
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW_KEY}&compareRunsMode=CHART"


def ensure_store() -> str:
    """Make the default database whole if it is not there, and return the tracking URI."""
    uri = store_uri()
    default = paths.mlruns() / "mlflow.db"
    if uri == f"sqlite:///{default}":
        stores.make_whole(default, _build_schema)
    mlflow.set_tracking_uri(uri)
    return uri


def _build_schema(uri: str) -> None:
    engine = mlflow_db.create_sqlalchemy_engine(uri)
    mlflow_db._initialize_tables(engine)
    engine.dispose()


class MlflowTracker:
    """The `Tracker` of one study and budget in MLflow."""

    def __init__(self, study: str, budget: str, note: str) -> None:
        self.study, self.budget = study, budget
        self.experiment = experiment_name(study, budget)
        uri = ensure_store()
        self.client = mlflow.MlflowClient()
        try:
            self.experiment_id = self._experiment(uri)
        except (MlflowException, OSError) as fault:
            raise MachineError(f"cannot use the tracking store {uri}\n{str(fault).splitlines()[0][:300]}") from None
        wanted = {
            f"mlflow.sharedViewState.{VIEW_KEY}": shared_view(),
            "mlflow.note.content": note,
            "mlflow.experimentKind": "custom_model_development",
        }
        there = self.client.get_experiment(self.experiment_id).tags
        for key, value in wanted.items():
            if there.get(key) != value:  # starting a finished study again must not touch the store
                self.client.set_experiment_tag(self.experiment_id, key, value)
        self.parent = self._parent()

    def _experiment(self, uri: str) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is not None:
            return found.experiment_id
        local = (paths.mlruns() / "artifacts" / self.experiment).as_uri() if uri.startswith("sqlite:") else None
        return self.client.create_experiment(self.experiment, artifact_location=local)

    def _search(self, condition: str, most: int = PAGE) -> list:
        return list(self.client.search_runs([self.experiment_id], condition, ViewType.ACTIVE_ONLY, max_results=most))

    def _parent(self) -> str:
        found = self._search("tags.kind = 'study'", 1)
        if found:
            return found[0].info.run_id
        tags = manifest.tags() | {"kind": "study", "study": self.study, "budget": self.budget}
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=f"{self.experiment}: the study")
        return run.info.run_id

    @property
    def ui_path(self) -> str:
        """The study's page in the MLflow UI."""
        return study_page(self.experiment_id)

    def begin(self, spec: TrialSpec, arm: str, trial: int, attempt: int, origin: Mapping[str, str]) -> str:
        tags = manifest.tags() | {
            "kind": "trial",
            "study": self.study,
            "budget": self.budget,
            "cell": spec.id,
            "arm": arm,
            "seed": str(spec.seed),
            "trial": str(trial),
            "attempt": str(attempt),
            **origin,
            "mlflow.parentRunId": self.parent,
        }
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=f"{arm} / seed {spec.seed}").info.run_id
        shown = {"arm": arm, "seed": spec.seed, "likelihood": spec.likelihood, "activation": spec.activation}
        shown |= {"latent": spec.latent, "learning_rate": spec.learning_rate, "epochs": spec.epochs, "spec": spec.id}
        self.client.log_batch(run, params=[Param(k, str(v)) for k, v in shown.items()])
        self.client.log_dict(run, spec.as_dict(), "spec.json")
        meta = MetaDataset(
            CodeDatasetSource(tags={"mlflow.source.name": "harness.data"}),
            name=spec.dataset,
            digest=origin["dataset.digest"][:36],
        )
        self.client.log_inputs(run, [DatasetInput(meta._to_mlflow_entity())])
        return run

    def log(self, run: str, step: int, row: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(run, metrics=[Metric(k, v, now, step) for k, v in row.items()])

    def finish(self, run: str, result: Result, files: Path) -> None:
        self.client.log_artifacts(run, str(files))
        self.log(run, result.spec.epochs, result.metrics)
        self.client.set_terminated(run, "FINISHED")

    def fail(self, run: str, why: str, *, killed: bool = False) -> None:
        self.client.set_tag(run, "failure", why[:TAG_LIMIT])
        self.client.set_terminated(run, "KILLED" if killed else "FAILED")

    def finished(self, trial: int) -> tuple[str, Mapping[str, float]] | None:
        found = self._search(f"tags.trial = '{trial}' and attributes.status = 'FINISHED'", 1)
        return (found[0].info.run_id, found[0].data.metrics) if found else None

    def close_orphans(self, keep: set[str]) -> int:
        running = self._search("attributes.status = 'RUNNING' and tags.kind = 'trial'")
        lost = [r.info.run_id for r in running if r.info.run_id not in keep]
        for run in lost:
            self.fail(run, "lost: its process ended", killed=True)
        return len(lost)

    def results(self, runs: Mapping[str, str]) -> dict[str, Record]:
        records: dict[str, Record] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id],
                "tags.kind = 'trial' and attributes.status = 'FINISHED'",
                max_results=PAGE,
                page_token=token,
            )
            records |= {r.info.run_id: Record(r.info.run_id, r.data.metrics, r.data.tags) for r in page}
            token = page.token
            if not token:
                break
        return {cell: records[run] for cell, run in runs.items() if run in records}

    def file(self, run: str, name: str) -> Path:
        return Path(self.client.download_artifacts(run, name))

    def reopen_study(self) -> None:
        self.client.update_run(self.parent, status="RUNNING")

    def stop_study(self) -> None:
        self.client.set_terminated(self.parent, "KILLED")

    def finish_study(self, files: Path, summary: Mapping[str, str]) -> None:
        self.client.log_artifacts(self.parent, str(files))
        tags = [RunTag(k, v[:TAG_LIMIT]) for k, v in summary.items()]
        self.client.log_batch(self.parent, tags=tags)
        self.client.set_terminated(self.parent, "FINISHED")

    def study_tag(self, key: str) -> str | None:
        return self.client.get_run(self.parent).data.tags.get(key)

    def log_model(self, module: Any, example: Any, requirements: list[str]) -> str:
        with warnings.catch_warnings(), mlflow.start_run(run_id=self.parent):
            warnings.simplefilter("ignore")
            info = mlflow.pytorch.log_model(
                module,
                name="winner",
                input_example=example,
                serialization_format="pt2",
                pip_requirements=requirements,
            )
        return info.model_uri


def on_record(study: str, budget: str) -> tuple[dict[str, Record], dict[str, str]]:
    """By cell id: the finished runs of a study and budget, and why the cells failed that have neither a result nor a run under way.

    Writes nothing and takes no lock, so it may be asked beside a driver. Where a cell has several runs the newest counts.
    """
    uri = store_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():  # MLflow would make it
        return {}, {}
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    runs: list = []
    try:
        experiment = client.get_experiment_by_name(experiment_name(study, budget))
        token = None
        while experiment is not None:
            page = client.search_runs(
                [experiment.experiment_id],
                "tags.kind = 'trial'",
                max_results=PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                break
    except (MlflowException, OSError) as fault:
        raise MachineError(f"cannot read the tracking store {uri}\n{str(fault).splitlines()[0][:300]}") from None
    of = {status: {r.data.tags["cell"]: r for r in runs if r.info.status == status} for status in ("FINISHED", "RUNNING", "FAILED")}
    records = {c: Record(r.info.run_id, r.data.metrics, r.data.tags) for c, r in of["FINISHED"].items()}
    settled = {*of["FINISHED"], *of["RUNNING"]}
    return records, {c: r.data.tags.get("failure", "unknown") for c, r in of["FAILED"].items() if c not in settled}
