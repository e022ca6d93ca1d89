"""Runs on record, in MLflow. One experiment per study and budget, a parent run, a child per trial."""

import logging
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_TRUNCATE_LONG_VALUES", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK", "true")

import mlflow
from alembic.script import ScriptDirectory
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

    def prune(self, run: str, epoch: int) -> None:
        """Close the run of a trial that was pruned after this epoch."""

    def reopen(self, run: str) -> int | None:
        """RUNNING again; returns the last epoch on record, or None where there is no such run to go on with."""

    def look(self, run: str) -> tuple[str, Mapping[str, float]]:
        """A run's status and last metrics; no status where there is no such run."""

    def finished_runs(self, ledger: str) -> set[str]:
        """Runs of a ledger that are FINISHED."""

    def close_orphans(self, ledger: str, keep: set[str], older_than_s: float) -> int:
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
    """Make a database that is SQLite or PostgreSQL whole if it is not, and return the tracking URI."""
    uri = stores.prepare(store_uri(), SCHEMA, "MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    return uri


def artifact_location(experiment: str) -> str | None:
    """Where a new experiment's files go: `$HARNESS_ARTIFACTS`, or mlruns/artifacts; None where a server over HTTP keeps them."""
    if store_uri().startswith("http"):
        return None
    chosen = os.environ.get("HARNESS_ARTIFACTS") or str(paths.mlruns() / "artifacts")
    root = chosen if "://" in chosen else Path(chosen).resolve().as_uri()
    return f"{root.rstrip('/')}/{quote(experiment)}"


def _build_schema(uri: str) -> None:
    engine = mlflow_db.create_sqlalchemy_engine(uri)
    mlflow_db._initialize_tables(engine)
    engine.dispose()


def _revisions() -> list[str]:
    script = ScriptDirectory.from_config(mlflow_db._get_alembic_config(db_url=""))
    return [step.revision for step in script.walk_revisions()]


SCHEMA = stores.Schema("MLflow", _build_schema, _revisions, "mlflow db upgrade")


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
            raise MachineError(f"cannot use the tracking store {stores.shown(uri)}\n{str(fault).splitlines()[0][:300]}") from None
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
        return self.client.create_experiment(self.experiment, artifact_location=artifact_location(self.experiment))

    def _search(self, condition: str, most: int = PAGE) -> list:
        return list(self.client.search_runs([self.experiment_id], condition, ViewType.ACTIVE_ONLY, max_results=most))

    def _all(self, condition: str) -> list:
        """Every run that meets a condition, page by page."""
        return _pages(self.client, self.experiment_id, condition)

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
        there = self.client.get_run(run).data.metrics  # an earlier attempt may have been cut off right here
        self.log(run, result.spec.epochs, {k: v for k, v in result.metrics.items() if k not in there})
        self.client.set_terminated(run, "FINISHED")

    def fail(self, run: str, why: str, *, killed: bool = False) -> None:
        self.client.set_tag(run, "failure", why[:TAG_LIMIT])
        self.client.set_terminated(run, "KILLED" if killed else "FAILED")

    def prune(self, run: str, epoch: int) -> None:
        self.client.set_tag(run, "pruned", f"after epoch {epoch}")
        self.client.set_terminated(run, "KILLED")

    def reopen(self, run: str) -> int | None:
        status, metrics = self.look(run)
        if not status or status == "FINISHED":
            return None
        self.client.update_run(run, status="RUNNING")
        epochs = self.client.get_metric_history(run, "elbo/train") if "elbo/train" in metrics else []
        return max((m.step for m in epochs), default=0)

    def look(self, run: str) -> tuple[str, Mapping[str, float]]:
        if not run:
            return "", {}
        try:
            found = self.client.get_run(run)
        except MlflowException as fault:
            if fault.error_code == "RESOURCE_DOES_NOT_EXIST":
                return "", {}
            raise
        return (found.info.status, found.data.metrics) if found.info.lifecycle_stage == "active" else ("", {})

    def finished_runs(self, ledger: str) -> set[str]:
        return {r.info.run_id for r in self._all(f"tags.ledger = '{ledger}' and attributes.status = 'FINISHED'")}

    def close_orphans(self, ledger: str, keep: set[str], older_than_s: float) -> int:
        before = (time.time() - older_than_s) * 1000
        running = self._all(f"tags.ledger = '{ledger}' and attributes.status = 'RUNNING'")
        lost = [r.info.run_id for r in running if r.info.run_id not in keep and r.info.start_time <= before]
        for run in lost:
            self.fail(run, "lost: its process ended", killed=True)
        return len(lost)

    def results(self, runs: Mapping[str, str]) -> dict[str, Record]:
        found = self._all("tags.kind = 'trial' and attributes.status = 'FINISHED'")
        records = {r.info.run_id: Record(r.info.run_id, r.data.metrics, r.data.tags) for r in found}
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


def refitted(study: str, budget: str) -> dict[str, TrialSpec]:
    """The trials that a search's best were trained again as, by arm; without a record none. Writes nothing and takes no lock."""
    uri = store_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return {}
    ensure_store()
    client = mlflow.MlflowClient()
    try:
        experiment = client.get_experiment_by_name(experiment_name(study, budget))
        runs = _pages(client, experiment.experiment_id, f"tags.ledger = '{study}.{budget}.refit'") if experiment else []
        newest = {r.data.tags["arm"]: r.info.artifact_uri for r in reversed(runs) if r.data.tags["arm"] != "base"}
        specs = {arm: mlflow.artifacts.load_dict(f"{files}/spec.json") for arm, files in newest.items()}
    except (MlflowException, OSError) as fault:
        raise MachineError(f"cannot read the tracking store {stores.shown(uri)}\n{str(fault).splitlines()[0][:300]}") from None
    return {arm: TrialSpec.from_dict(spec) for arm, spec in specs.items()}


def _pages(client: mlflow.MlflowClient, experiment: str, condition: str, order: list[str] | None = None) -> list:
    runs: list = []
    token = None
    while True:
        page = client.search_runs([experiment], condition, max_results=PAGE, order_by=order, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def on_record(study: str, budget: str) -> tuple[dict[str, Record], dict[str, str]]:
    """By cell id: the finished runs of a study and budget, and why the cells failed that have neither a result nor a run under way.

    Writes nothing and takes no lock, so it may be asked beside a driver. Where a cell has several runs the newest counts.
    """
    uri = store_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():  # MLflow would make it
        return {}, {}
    ensure_store()
    client = mlflow.MlflowClient()
    try:
        experiment = client.get_experiment_by_name(experiment_name(study, budget))
        oldest_first = ["attributes.start_time ASC"]
        runs = _pages(client, experiment.experiment_id, "tags.kind = 'trial'", oldest_first) if experiment else []
    except (MlflowException, OSError) as fault:
        raise MachineError(f"cannot read the tracking store {stores.shown(uri)}\n{str(fault).splitlines()[0][:300]}") from None
    of = {status: {r.data.tags["cell"]: r for r in runs if r.info.status == status} for status in ("FINISHED", "RUNNING", "FAILED")}
    records = {c: Record(r.info.run_id, r.data.metrics, r.data.tags) for c, r in of["FINISHED"].items()}
    settled = {*of["FINISHED"], *of["RUNNING"]}
    return records, {c: r.data.tags.get("failure", "unknown") for c, r in of["FAILED"].items() if c not in settled}
