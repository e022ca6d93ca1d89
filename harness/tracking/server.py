"""The MLflow server for people, on the loopback interface only and for the host names that it is meant to answer to."""

import os
import socket
import sys

from rich.console import Console

from harness import paths, provenance, tracking
from harness.errors import MachineError, UserError
from harness.tracking import library
from harness.tracking.layout import VIEW_KEY

HOST = "127.0.0.1"
DEFAULT_PORT = 5_000
TRIES = 20
LAST_PORT = 65_535
SETTINGS = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}
DEPRECATION = "starlette.middleware.wsgi is deprecated"  # MLflow's to mend: its server imports it


def free_port(first: int) -> int:
    """Return the first free port from `first` on.

    Raises:
        UserError: `first` is no port that can be listened on.
        MachineError: this user may not listen on `first`, or the first 20 ports are all taken.
    """
    if not 1 <= first <= LAST_PORT:
        raise UserError(f"--port {first}: ports are 1 to {LAST_PORT}\ntry: {paths.command('ui', port=DEFAULT_PORT)}")
    last = min(first + TRIES - 1, LAST_PORT)
    for port in range(first, last + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except PermissionError:
                raise MachineError(
                    f"--port {port}: this user may not listen on it, only an administrator may\n"
                    f"try: {paths.command('ui', port=DEFAULT_PORT)}"
                ) from None
            except OSError:
                continue
            return port
    other = first + 1_000 if first + 1_000 <= LAST_PORT else DEFAULT_PORT
    raise MachineError(f"ports {first} to {last} are all taken\nname another: {paths.command('ui', port=other)}")


def address() -> str:
    """Return where the MLflow UI is: the server that runs are recorded on, or that of `harness ui`, without a password."""
    uri = tracking.store_uri()
    return provenance.redacted(uri) if uri.startswith("http") else f"http://{HOST}:{DEFAULT_PORT}"


def command(port: int) -> list[str]:
    """Return the server's command line: explicit hosts, one worker, and the folder of the artifacts.

    Files are shown and not taken: artifacts of local folders are read by the server itself, and runs write theirs without it, so
    that it needs no way to store a file.
    """
    return [
        sys.executable,
        *("-P", "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--app-name", "vae-harness"),  # own_origin.py, as installed (-P): not what lies in the working folder
        "--no-serve-artifacts",
        *("--default-artifact-root", (paths.mlruns() / "artifacts").as_uri()),
        *("--allowed-hosts", f"{HOST}:{port},localhost:{port}"),
        *("--cors-allowed-origins", f"http://{HOST}:{port},http://localhost:{port}"),
        *("--x-frame-options", "DENY"),
    ]


def environment(uri: str) -> dict[str, str]:
    """Return the server's environment variables.

    The URI of the store is among them because it may hold a password, and all users of a machine can read command lines.
    """
    warnings = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), f"ignore:{DEPRECATION}")))
    return {**os.environ, **SETTINGS, "MLFLOW_BACKEND_STORE_URI": uri, "PYTHONWARNINGS": warnings}


def serve(port: int, console: Console) -> None:
    """Print the studies' pages and replace this process by the server."""
    chosen = free_port(port)
    uri = tracking.ensure_store()
    if chosen != port:
        console.print(f"port {port} is taken, using {chosen}")
    console.print(f"MLflow on http://{HOST}:{chosen} (some seconds to start; Ctrl-C ends it)")
    for name, page in study_pages():
        console.print(f"  {name}: http://{HOST}:{chosen}{page}", soft_wrap=True, highlight=False, markup=False)
    arguments = command(chosen)
    os.execve(arguments[0], arguments, environment(uri))


def study_pages() -> list[tuple[str, str]]:
    """Return the name and the page of every recorded study, arranged as charts by arm."""
    experiments = library.client().search_experiments()
    marked = [e for e in experiments if f"mlflow.sharedViewState.{VIEW_KEY}" in e.tags]
    return [(e.name, tracking.study_page(e.experiment_id)) for e in sorted(marked, key=lambda e: e.name)]
