"""MLflow's store: its address, its creation, and reading it page by page."""

import os
import socket
import time
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies

from harness import paths
from harness.errors import MachineError, UserError
from harness.stores import addresses, databases, servers
from harness.stores.files import SQLITE_PATIENCE_S
from harness.stores.schema import Schema
from harness.tracking import library
from harness.tracking.layout import VIEW_KEY
from harness.tracking.relocation import relocate

SERVERS = ("http", "https")
ANSWER_S = 5.0  # that a server has to answer
PAGE = 1_000  # runs per request
OLDEST_FIRST = ["attributes.start_time ASC"]
WRITES = ("log_", "set_", "update_", "create_", "delete_")  # how the names of the client's methods begin that write
LOCKED_S = 1.0  # between two tries on a locked database


def store_uri() -> str:
    """Return `$MLFLOW_TRACKING_URI` or the URI of the SQLite file in mlruns/, which is absolute.

    Raises:
        UserError: the address has another scheme than a store that runs can be recorded in, or is no address.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        return addresses.sqlite_uri(paths.mlruns() / "mlflow.db")
    try:
        known = urlsplit(given).scheme in (*SERVERS, *servers.SCHEMES) or addresses.sqlite_path(given) is not None
    except ValueError:
        known = False
    if not known:
        raise UserError(
            f"MLFLOW_TRACKING_URI={databases.redacted(given)}: runs cannot be recorded there\n"
            "write sqlite:////folder/mlflow.db, postgresql+psycopg://USER@HOST:PORT/DATABASE or http://HOST:PORT of a server of\n"
            "MLflow, which may keep them elsewhere; or leave it out: mlruns/mlflow.db"
        )
    return given


def experiment_name(study: str, budget: str) -> str:
    """Return the name of a study and budget's experiment; that of the default budget is the study's own name."""
    return study if budget == "default" else f"{study}-{budget}"


def study_page(experiment_id: str, view: str = VIEW_KEY) -> str:
    """Return the path of an experiment in the MLflow UI, in one of the arrangements of its charts (layout.py)."""
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={view}&compareRunsMode=CHART"


def run_page(experiment_id: str, run: str) -> str:
    """Return the path of a run in the MLflow UI."""
    return f"/#/experiments/{experiment_id}/runs/{run}"


def ensure_store() -> str:
    """Create the tables of a SQLite or PostgreSQL store that has none, and return the tracking URI.

    Of a home that was moved or copied, the addresses of files become those in the present home.
    """
    uri = databases.prepare(store_uri(), MLFLOW_SCHEMA, "MLFLOW_TRACKING_URI")
    path = addresses.sqlite_path(uri)
    if path is not None:
        relocate(path)
    library.use(uri)
    return uri


def check_store() -> None:
    """Raise an error unless the tracking store can be used, as far as that shows without writing anything.

    A file that exists must hold MLflow's tables; a server must answer.

    Raises:
        UserError: the address has another scheme, or is no address.
        MachineError: no server answers there, or the file is damaged, of another version or another program's.
    """
    uri = store_uri()
    kind = uri.partition(":")[0]
    path = addresses.sqlite_path(uri)
    if path is not None and path.exists():
        databases.prepare(uri, MLFLOW_SCHEMA, "MLFLOW_TRACKING_URI")
    if path is not None or kind in servers.SCHEMES or getproxies().get(kind):
        return  # a server over HTTP may be reachable by the proxy alone
    server = urlsplit(uri)
    try:
        socket.create_connection((server.hostname or "", server.port or (443 if kind == "https" else 80)), ANSWER_S).close()
    except (OSError, ValueError, UnicodeError) as fault:
        raise MachineError(
            f"no MLflow server answers at MLFLOW_TRACKING_URI={databases.redacted(uri)}: {fault}\n"
            "start it, or leave the variable out: runs are then kept in mlruns/mlflow.db"
        ) from None


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
            MachineError: the database has been locked for too long, or what is written to was deleted.
        """
        method = getattr(self.client, name)

        @wraps(method)
        def retrying(*arguments: Any, **named: Any) -> Any:
            deadline = time.monotonic() + SQLITE_PATIENCE_S
            while True:
                try:
                    return method(*arguments, **named)
                except library.failures() as fault:
                    if name.startswith(WRITES) and library.is_deleted(fault):
                        raise MachineError(
                            f"{str(fault).splitlines()[0][:200]}\nit was deleted in MLflow while the study was running: the same "
                            "command goes on, and trains again what was deleted\nand is not restored there before"
                        ) from None
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
