"""MLflow's store: its address, its creation, and reading it page by page."""

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

PAGE = 1_000  # runs per request
LOCKED_S = 1.0  # between two tries on a locked database


def store_uri() -> str:
    """Return `$MLFLOW_TRACKING_URI` or the URI of the SQLite file in mlruns/, which is absolute."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.mlruns() / 'mlflow.db'}"


def experiment_name(study: str, budget: str) -> str:
    """Return the name of a study and budget's experiment; that of the default budget is the study's own name."""
    return study if budget == "default" else f"{study}-{budget}"


def study_page(experiment_id: str) -> str:
    """Return the path of an experiment in the MLflow UI, arranged as charts by arm."""
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW_KEY}&compareRunsMode=CHART"


def ensure_store() -> str:
    """Create the tables of a SQLite or PostgreSQL store that has none, and return the tracking URI."""
    uri = databases.prepare(store_uri(), MLFLOW_SCHEMA, "MLFLOW_TRACKING_URI")
    library.mlflow().set_tracking_uri(uri)
    return uri


def artifact_location(experiment: str) -> str | None:
    """Return the URI of the folder for a new experiment's files; None if a server over HTTP keeps them.

    It is in `$HARNESS_ARTIFACTS`, or in mlruns/artifacts.
    """
    if store_uri().startswith("http"):
        return None
    location = os.environ.get("HARNESS_ARTIFACTS") or str(paths.mlruns() / "artifacts")
    root = location if "://" in location else Path(location).resolve().as_uri()
    return f"{root.rstrip('/')}/{quote(experiment)}"


class PatientClient:
    """MLflow's client, for a SQLite file that another process may lock.

    A call is repeated for as long as the trial store waits for a lock, whereas MLflow gives up after 20 s. A transaction that met a
    lock has changed nothing, so that it can be written again.
    """

    def __init__(self) -> None:
        self.client = library.client()

    def __getattr__(self, name: str) -> Any:
        """Return the client's method, repeated while the database is locked.

        Raises:
            MachineError: the database has been locked for too long.
        """
        method = getattr(self.client, name)

        @wraps(method)
        def retrying(*arguments: Any, **named: Any) -> Any:
            deadline = time.monotonic() + SQLITE_PATIENCE_S
            while True:
                try:
                    return method(*arguments, **named)
                except library.failure() as fault:
                    if "database is locked" not in str(fault):
                        raise
                    if time.monotonic() > deadline:
                        raise MachineError(
                            f"{databases.redacted(store_uri())} has been locked by another process for too long"
                        ) from None
                time.sleep(LOCKED_S)

        return retrying


MLFLOW_SCHEMA = Schema("MLflow", library.build_tables, library.revisions, "mlflow db upgrade")


def search_all(client: Any, experiment: str, condition: str, order: list[str] | None = None) -> list[Any]:
    """Return every run of an experiment that meets a condition, in this order."""
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], condition, max_results=PAGE, order_by=order, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs
