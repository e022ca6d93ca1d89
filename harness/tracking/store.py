"""MLflow's store: where it is, made whole, read page by page."""

import logging
import os
from pathlib import Path
from urllib.parse import quote

import mlflow
from alembic.script import ScriptDirectory
from mlflow.store.db import utils as mlflow_db

from harness import paths, stores
from harness.shared_view import VIEW_KEY

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.ERROR)

PAGE = 1_000


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


def pages(client: mlflow.MlflowClient, experiment: str, condition: str, order: list[str] | None = None) -> list:
    """Every run that meets a condition."""
    runs: list = []
    token = None
    while True:
        page = client.search_runs([experiment], condition, max_results=PAGE, order_by=order, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs
