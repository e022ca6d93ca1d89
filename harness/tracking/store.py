"""MLflow's store: where it is, made whole, read page by page."""

import os
import time
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness import paths
from harness.errors import MachineError
from harness.stores import databases
from harness.stores.files import SQLITE_PATIENCE_S
from harness.stores.schema import Schema
from harness.tracking import library
from harness.tracking.layout import VIEW_KEY

PAGE = 1_000
LOCKED_S = 1.0  # between two tries


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
    uri = databases.prepare(store_uri(), MLFLOW_SCHEMA, "MLFLOW_TRACKING_URI")
    library.mlflow().set_tracking_uri(uri)
    return uri


def artifact_location(experiment: str) -> str | None:
    """Where a new experiment's files go: `$HARNESS_ARTIFACTS`, or mlruns/artifacts; None where a server over HTTP keeps them."""
    if store_uri().startswith("http"):
        return None
    chosen = os.environ.get("HARNESS_ARTIFACTS") or str(paths.mlruns() / "artifacts")
    root = chosen if "://" in chosen else Path(chosen).resolve().as_uri()
    return f"{root.rstrip('/')}/{quote(experiment)}"


class PatientClient:
    """MLflow's client, for a SQLite file that another process may lock.

    It waits as long as the ledger does, where MLflow's gives up after 20 s. What could not be written then is written anew: a
    transaction that met a lock has changed nothing.
    """

    def __init__(self) -> None:
        self.client = library.client()

    def __getattr__(self, name: str) -> Any:
        ask = getattr(self.client, name)

        @wraps(ask)
        def patiently(*arguments: Any, **named: Any) -> Any:
            until = time.monotonic() + SQLITE_PATIENCE_S
            while True:
                try:
                    return ask(*arguments, **named)
                except library.failure() as fault:
                    if "database is locked" not in str(fault):
                        raise
                    if time.monotonic() > until:
                        raise MachineError(
                            f"{databases.shown(store_uri())} has been locked by another process for too long"
                        ) from None
                time.sleep(LOCKED_S)

        return patiently


MLFLOW_SCHEMA = Schema("MLflow", library.build_tables, library.revisions, "mlflow db upgrade")


def pages(client: Any, experiment: str, condition: str, order: list[str] | None = None) -> list:
    """Every run that meets a condition."""
    runs: list = []
    token = None
    while True:
        page = client.search_runs([experiment], condition, max_results=PAGE, order_by=order, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs
