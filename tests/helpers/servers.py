"""Servers that tests talk to: on loopback only, started once a session, stopped at its end."""

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import paths

HOST = "127.0.0.1"
GUARDED, PASSWORD = "guarded", "s3cret @/:%{}word"  # a role that must show a password, and one full of what URIs trip over
DEPLOY = paths.PROJECT / "deploy"
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=64MB", "max_connections=60")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def binaries() -> Path | None:
    """Where initdb and postgres lie: on the path, or where Debian puts them, the newest version first."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((f.parent for f in debian), key=lambda bin: float(bin.parent.name), default=None)


@dataclass
class Postgres:
    """A running server, whose only trusted user is `postgres`."""

    port: int
    process: subprocess.Popen
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def uri(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        from sqlalchemy import URL

        url = URL.create("postgresql+psycopg", user, password, HOST, self.port, database)
        return url.render_as_string(hide_password=False)

    def database(self, owner: str = "postgres") -> str:
        """The name of a new, empty database."""
        name = f"test_{next(self.numbers)}"
        self.run(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE template0")
        return name

    def run(self, statement: str, database: str = "postgres") -> list[tuple]:
        """A statement by the superuser; its rows, if it has any."""
        import psycopg

        with psycopg.connect(host=HOST, port=self.port, user="postgres", dbname=database, autocommit=True) as connection:
            answer = connection.execute(statement)
            return answer.fetchall() if answer.description else []


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this machine's own packages, or a skip that says what is missing."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'psycopg[binary]'")
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    if os.getuid() == 0 and not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        pytest.skip("no user 'postgres', and PostgreSQL does not run as root")
    with postgres_server(FAST) as server:
        server.run(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")
        yield server


@contextmanager
def postgres_server(settings: Sequence[str]) -> Iterator[Postgres]:
    """A new PostgreSQL on loopback, gone afterwards. The server refuses to run as root, so root runs it as `postgres`."""
    bin = binaries()
    assert bin is not None
    account = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    as_owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    # Not in pytest's folder: other users cannot reach it, and the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        os.chown(folder, account.pw_uid, account.pw_gid)
        data, log = Path(folder) / "data", Path(folder) / "log"
        flags = "-U postgres -A trust -E UTF8 --locale=C --no-sync --no-instructions"
        subprocess.run([bin / "initdb", "-D", data, *flags.split()], cwd=folder, stdout=subprocess.DEVNULL, check=True, **as_owner)
        rules = f"host all {GUARDED},harness,mlflow {HOST}/32 scram-sha-256\nhost all all {HOST}/32 trust\nlocal all all trust\n"
        (data / "pg_hba.conf").write_text(rules, encoding="utf-8")
        port = free_port()
        addresses = [f"listen_addresses={HOST}", f"port={port}", f"unix_socket_directories={folder}"]
        command = [bin / "postgres", "-D", data, *itertools.chain.from_iterable(("-c", s) for s in [*addresses, *settings])]
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, **as_owner)
        server = Postgres(port, process)
        try:
            wait_for(process, log, 30, lambda: server.run("SELECT 1"))
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing in it is worth a checkpoint
            process.wait(20)


@contextmanager
def mlflow_server(postgres: Postgres, folder: Path, workers: int) -> Iterator[str]:
    """PostgreSQL's databases as deploy/databases.sql makes them, and the server of deploy/serve_mlflow.sh on them: its address.

    `folder`: where it keeps files; the secrets lie in deploy/secrets there.
    """
    secrets = make_secrets(folder)
    bin = binaries()
    assert bin is not None
    psql = [bin / "psql", "--no-psqlrc", "-q", "-v", "ON_ERROR_STOP=1", "-h", HOST, "-p", str(postgres.port), "-U", "postgres"]
    subprocess.run([*psql, "-f", DEPLOY / "databases.sql"], check=True, env=os.environ | {"SECRETS": str(secrets)})
    port, log = free_port(), folder / "log"
    settings = {
        "SECRETS": str(secrets),
        "POSTGRES": f"{HOST}:{postgres.port}",
        "ARTIFACTS": str(folder / "artifacts"),
        "HOSTS": f"{HOST}:{port}",
        "ORIGINS": f"http://{HOST}:{port}",
        "LISTEN": HOST,
        "PORT": str(port),
        "WORKERS": str(workers),
        "TMPDIR": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["bash", DEPLOY / "serve_mlflow.sh"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=os.environ | settings, stdout=output, stderr=output, cwd=folder)
    try:
        wait_for(server, log, 90, lambda: urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5).close())
        yield f"http://{HOST}:{port}"
    finally:
        server.terminate()
        server.wait(30)


def make_secrets(folder: Path) -> Path:
    """The secrets of compose.yaml, made elsewhere than in the project."""
    script = folder / "deploy" / "make_secrets.sh"
    (script.parent / "secrets").mkdir(parents=True, exist_ok=True)
    script.write_bytes((DEPLOY / script.name).read_bytes())
    subprocess.run(["bash", script], check=True, stdout=subprocess.DEVNULL)
    return script.parent / "secrets"


def wait_for(process: subprocess.Popen, log: Path, patience_s: float, answers: Callable[[], object]) -> None:
    """Try until a server answers; its own words where it ends or takes too long."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            answers()
            return
        except Exception:  # each server has its own way of not being there yet
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no answer: {log.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.05)
