"""What a PostgreSQL and an MLflow server on this machine take in: the table in docs/scaling.md. A program; no test.

python tests/helpers/server_rates.py
"""

import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from itertools import count, product
from pathlib import Path

import mlflow
import optuna
from mlflow.entities import Metric
from mlflow.server import get_app_client
from optuna.distributions import IntDistribution
from servers import Postgres, make_secrets, mlflow_server, postgres_server

from harness import queue, tracking

SECONDS = 10.0
KEYS = 14  # scores of an epoch
LOOP = "uvloop" if find_spec("uvloop") else "without the uvloop of deploy/Dockerfile"
Step = Callable[[], object]


def rate(prepare: Callable[[int], Step], processes: int) -> tuple[float, float]:
    """Steps a second of all processes together, and the 95th percentile of a step's milliseconds."""
    readers = []
    start = time.monotonic() + 4  # all have connected by then
    for number in range(processes):
        reader, writer = os.pipe()
        if os.fork() == 0:
            step = prepare(number)
            step()
            time.sleep(max(0.0, start - time.monotonic()))
            taken = []
            while (began := time.monotonic()) < start + SECONDS:
                step()
                taken.append(time.monotonic() - began)
            os.write(writer, json.dumps([len(taken), sorted(taken)[int(len(taken) * 0.95)]]).encode())
            os._exit(0)
        os.close(writer)
        readers.append(os.fdopen(reader))
    told = [json.load(reader) for reader in readers]
    for _ in range(processes):
        os.wait()
    return sum(count for count, _ in told) / SECONDS, 1e3 * max(late for _, late in told)


def record(uri: str, epochs: int, user: str = "", password: str = "") -> Callable[[int], Step]:
    """A step: one call with the scores of some epochs of one run."""

    def prepare(number: int) -> Step:
        os.environ |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        tracking.ensure_store()
        client = mlflow.MlflowClient()
        name = f"rates {number} {time.time()}"
        run = client.create_run(client.create_experiment(name, tracking.artifact_location(name))).info.run_id
        begins = count(0, epochs)

        def step() -> None:
            first, now = next(begins), int(time.time() * 1000)
            rows = product(range(first, first + epochs), range(KEYS))
            client.log_batch(run, metrics=[Metric(f"part{key}/validation", 1.0, now, epoch) for epoch, key in rows])

        return step

    return prepare


def trials(uri: str, name: str) -> Callable[[int], Step]:
    """A step: one trial of a shared store queued, taken and told."""

    def prepare(number: int) -> Step:
        store = queue.TrialStore(name, ["minimize"], uri, shared=True)

        def step() -> None:
            store.queue({"seed": 1}, {"seed": IntDistribution(0, 10)}, {"cell": "x", "arm": "y", "attempt": 1})
            with store.alone():
                number = next(t.number for t in store.trials(optuna.trial.TrialState.WAITING) if store.claim(t.number))
            store.note(number, {"run": "0" * 32})
            with store.alone():
                store.complete(number, [1.0])

        return step

    return prepare


def show(what: str, measured: tuple[float, float], values: int = 0) -> None:
    each, late = measured
    points = f", {each * values:,.0f} values/s" if values else ""
    print(f"{what}: {each:.1f}/s{points}, 95 % within {late:.0f} ms", flush=True)


def main() -> None:
    """Measure, and say on what."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, postgres_server(["shared_buffers=256MB", "max_connections=100"]) as server:
        os.environ["HARNESS_HOME"] = folder
        version = server.run("SHOW server_version")[0][0].split()[0]
        print(f"PostgreSQL {version}, durable; MLflow {mlflow.__version__}, {LOOP}; {os.cpu_count()} cores")
        print(f"load before: {os.getloadavg()[0]:.1f}; {SECONDS:.0f} s each; servers and clients on the same cores")
        rates(server, Path(folder))
        print(f"load after: {os.getloadavg()[0]:.1f}")


def rates(server: Postgres, folder: Path) -> None:
    store = queue.database(server.uri(server.database()))
    for processes in (1, 3):
        show(f"trials queued, taken and told, {processes} driver(s)", rate(trials(store, f"rates{processes}"), processes))
    name = server.database()
    for epochs, processes in ((1, 1), (1, 3), (10, 1), (10, 3)):
        measured = rate(record(server.uri(name), epochs), processes)
        show(f"log_batch of {epochs} epoch(s), PostgreSQL direct, {processes} driver(s)", measured, epochs * KEYS)
    size = server.run("SELECT pg_total_relation_size('metrics') / count(*) FROM metrics", name)[0][0]
    print(f"{size} bytes a value in the table of metrics and its indices")
    with mlflow_server(server, folder, workers=2) as uri:
        os.environ["MLFLOW_TRACKING_USERNAME"] = "admin"
        os.environ["MLFLOW_TRACKING_PASSWORD"] = (make_secrets(folder) / "mlflow_admin_password").read_text(encoding="utf-8")
        get_app_client("basic-auth", tracking_uri=uri).create_user("ada", "ada's password")
        for epochs, processes in ((1, 1), (1, 3), (10, 1), (10, 3)):
            measured = rate(record(uri, epochs, "ada", "ada's password"), processes)
            show(f"log_batch of {epochs} epoch(s), MLflow server with names, {processes} driver(s)", measured, epochs * KEYS)


if __name__ == "__main__":
    main()
