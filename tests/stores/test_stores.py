"""Stores are whole or not at all, locks end with their holders, and no password is shown."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url, text

from harness import paths, queue, tracking
from harness.errors import HarnessError, MachineError, UserError
from harness.stores import databases, files, locks, schema, servers

COLD_STARTS = Path(__file__).parents[1] / "helpers" / "cold_starts.py"


def places(root: Path, number: int) -> list[dict[str, str]]:
    """Empty homes."""
    homes = [root / str(n) for n in range(number)]
    for home in homes:
        home.mkdir(parents=True)
    return [{"home": str(h), "tracking": "", "ledger": ""} for h in homes]


def cold_starts(**asked) -> dict:
    """Have the program do something; its answer."""
    done = subprocess.run(
        [sys.executable, COLD_STARTS], input=json.dumps(asked), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def answer(database: Path, question: str) -> object:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(question).fetchone()[0]


def integrity(home: str) -> set[object]:
    return {answer(Path(home) / "mlruns" / name, "PRAGMA integrity_check") for name in ("mlflow.db", "optuna.db")}


@pytest.mark.slow
def test_processes_that_meet_at_empty_stores_all_get_their_work_done(tmp_path: Path):
    homes = places(tmp_path, 5)
    assert cold_starts(what="race", places=homes, processes=4)["failures"] == []
    for home in (h["home"] for h in homes):
        assert integrity(home) == {"ok"}
        assert answer(Path(home) / "mlruns" / "mlflow.db", "SELECT count(*) FROM runs WHERE status = 'FINISHED'") == 4
        assert answer(Path(home) / "mlruns" / "optuna.db", "SELECT count(*) FROM trials WHERE state = 'COMPLETE'") == 4


@pytest.mark.slow
def test_first_starts_that_are_cut_off_leave_stores_that_work(tmp_path: Path):
    def cut_off(how: str, times: int) -> dict:
        homes = places(tmp_path / how, 1 + times)
        return cold_starts(what="cut off", places=homes, signals=[how] * times, seed=times)

    with ThreadPoolExecutor() as pool:
        killed, stopped = pool.map(cut_off, ["SIGKILL", "SIGINT"], [10, 5])
    assert killed["failures"] + stopped["failures"] == []
    assert killed["landed"] + stopped["landed"] >= 10, "too few were cut off while they were at it"
    homes = [home for how in ("SIGKILL", "SIGINT") for home in (tmp_path / how).iterdir()]
    assert {verdict for home in homes for verdict in integrity(str(home))} == {"ok"}
    assert not [leftover for home in homes for leftover in (home / "mlruns").glob("*.building*")]


# What is in the way of a database


def message(make: Callable[[], object], kind: type[HarnessError] = MachineError) -> str:
    with pytest.raises(kind) as caught:
        make()
    assert len(str(caught.value).splitlines()) <= 4
    return str(caught.value)


def test_a_file_that_is_no_database_is_left_alone(home: Path):
    file = home / "mlruns" / "optuna.db"
    file.parent.mkdir(parents=True)
    file.write_text("precious notes " * 100, encoding="utf-8")
    assert "optuna.db is not a SQLite database" in message(queue.database)
    assert file.read_text(encoding="utf-8").startswith("precious")


def test_an_empty_file_is_no_hindrance(home: Path):
    file = home / "mlruns" / "optuna.db"
    file.parent.mkdir(parents=True)
    file.touch()
    queue.database()
    assert answer(file, "SELECT count(*) FROM alembic_version") == 1


@pytest.mark.parametrize(
    ("revision", "said"),
    [("v2.6.0.a", "older Optuna"), ("v9.9.0.a", "newer Optuna made it, or another program"), (None, "or only half of them")],
)
def test_a_ledger_of_another_version_is_refused_and_not_touched(home: Path, revision: str | None, said: str):
    queue.database()
    file = home / "mlruns" / "optuna.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        if revision:
            connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
        else:
            connection.execute("DROP TABLE alembic_version")
    before = file.read_bytes()
    assert said in message(queue.database)
    assert file.read_bytes() == before


def test_the_other_program_s_database_is_refused(home: Path, mlflow_store: Path):
    mlflow_store.rename(mlflow_store.with_name("optuna.db"))
    assert "each program needs one of its own" in message(queue.database)


def test_an_older_tracking_store_is_refused_with_the_command_that_upgrades_it(mlflow_store: Path):
    older = tracking.MLFLOW_SCHEMA.revisions()[1]
    with closing(sqlite3.connect(mlflow_store)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [older])
    assert "mlflow db upgrade" in message(tracking.ensure_store)


def test_a_damaged_database_is_named(home: Path):
    queue.database()
    file = home / "mlruns" / "optuna.db"
    file.write_bytes(file.read_bytes()[:5000])
    assert "optuna.db is damaged" in message(queue.database)


def test_a_folder_that_cannot_be_written_is_named(home: Path):
    home.mkdir()
    (home / "mlruns").write_text("a file where the folder should be", encoding="utf-8")
    assert "mlruns" in message(queue.database)


def test_what_fails_in_building_leaves_nothing_and_says_whose_tables(home: Path):
    def fail(uri: str) -> None:
        with create_engine(uri).begin() as connection:
            connection.execute(text("CREATE TABLE half (a)"))
            connection.execute(text("no SQL at all"))

    broken = schema.Schema("Optuna", fail, lambda: ["1"], "")
    assert "cannot make Optuna's tables" in message(lambda: databases.trial_database("", broken))
    assert not (home / "mlruns" / "optuna.db").exists()
    queue.database()


# The journal and where files lie


def test_the_journal_is_chosen_by_version_and_file_system(home: Path, monkeypatch: pytest.MonkeyPatch):
    file = home / "mlruns" / "optuna.db"

    def journal() -> object:
        queue.database()
        return answer(file, "PRAGMA journal_mode")

    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 2))
    assert journal() == "delete"
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    assert journal() == "wal"
    monkeypatch.setattr(files, "network_file_system", lambda path: "nfs4")
    assert journal() == "delete"


def test_a_store_that_others_have_open_keeps_its_journal(home: Path, monkeypatch: pytest.MonkeyPatch):
    queue.database()
    with closing(sqlite3.connect(home / "mlruns" / "optuna.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM studies").fetchall()
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
        began = time.monotonic()
        queue.database()
        assert time.monotonic() - began < 5
        assert reader.execute("PRAGMA journal_mode").fetchone()[0] == "delete"


def test_network_file_systems_are_told_from_local_ones(tmp_path: Path):
    mounts = tmp_path / "mounts"
    here = tmp_path / "a folder"
    here.mkdir()
    escaped = str(here).replace(" ", "\\040")
    lines = ["/dev/sda / ext4 rw 0 0", f"server:/x {escaped} nfs4 rw 0 0", f"host:/x {tmp_path}/x fuse.sshfs rw 0 0"]
    mounts.write_text("\n".join(lines), encoding="utf-8")
    assert files.network_file_system(here / "mlruns", mounts) == "nfs4"
    assert files.network_file_system(tmp_path / "x" / "y", mounts) == "fuse.sshfs"
    assert files.network_file_system(tmp_path / "a", mounts) is None
    assert files.network_file_system(tmp_path, tmp_path / "no such file") is None


def test_a_network_file_system_is_said_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    files.caution.cache_clear()
    monkeypatch.setattr(files, "network_file_system", lambda path: "lustre")
    queue.database()
    queue.database()
    assert capsys.readouterr().err.count("lies on lustre") == 1


# Locks


def child(code: str) -> subprocess.Popen:
    """A process that does something and then prints a line."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "in"
    return process


def turn_holder(uri: str) -> subprocess.Popen:
    within = "print('in', flush=True); time.sleep(60)"
    return child(f"import time; from harness.stores import databases\nwith databases.exclusive({uri!r}, 'turn'): {within}")


def end(process: subprocess.Popen, how: int) -> None:
    process.send_signal(how)
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()


SQLITE = "sqlite:////anywhere.db"


def test_a_turn_ends_with_its_process_and_says_who_has_it(home: Path):
    holder = turn_holder(SQLITE)
    try:
        said = message(lambda: databases.exclusive(SQLITE, "turn", 0.2).__enter__())
        assert "waited" in said
        assert f"process {holder.pid}" in said
        with databases.exclusive(SQLITE, "another", 0.2):
            pass
    finally:
        end(holder, signal.SIGKILL)
    with databases.exclusive(SQLITE, "turn", 0.2):
        pass


def test_a_turn_ends_with_an_exception(home: Path):
    with pytest.raises(ZeroDivisionError), databases.exclusive(SQLITE, "turn", 0.2):
        1 / 0  # noqa: B018
    with databases.exclusive(SQLITE, "turn", 0.2) as check:
        check()


def test_turns_of_processes_do_not_overlap(home: Path):
    code = f"""
from harness.stores import databases
for _ in range(50):
    with databases.exclusive({SQLITE!r}, "turn"):
        value = int(open({str(home / "number")!r}).read())
        open({str(home / "number")!r}, "w").write(str(value + 1))
"""
    home.mkdir()
    (home / "number").write_text("0", encoding="utf-8")
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [p.wait(60) for p in both] == [0, 0]
    assert (home / "number").read_text(encoding="utf-8") == "100"


def test_a_busy_lock_says_so_at_once(home: Path):
    path = paths.mlruns() / "locks" / "study.lock"
    with locks.lock(path):
        said = message(lambda: locks.lock(path, busy="another driver is at it").__enter__())
    assert "another driver is at it" in said
    assert f"process {os.getpid()}" in said


# Addresses of servers


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("mysql://someone:geheim@host/ledger", "unknown scheme 'mysql'"),
        ("sqlite:///ledger.db", "unknown scheme 'sqlite'"),
        ("postgresql+psycopg2://someone:geheim@host/ledger", "unknown scheme"),
        ("no address", "is not a URI"),
        ("postgresql://someone:geheim@host:port/ledger", "is not a URI"),
        ("postgresql://someone:geh@eim@host/ledger", "as %40"),
        ("postgresql://someone:geheim@host", "names no database"),
    ],
)
def test_an_address_that_is_none_is_refused(uri: str, said: str):
    text = message(lambda: queue.database(uri), UserError)
    assert said in text
    assert "STORAGE" in text
    assert "geh" not in text


def test_passwords_are_not_shown_and_reach_libraries_whole():
    password = "a b@c/d:e%f{g}#h?i"  # what URIs, alembic's % and Optuna's {} trip over
    uri = URL.create("postgres", "someone", password, "host", 5432, "ledger").render_as_string(hide_password=False)
    pytest.importorskip("psycopg")
    url = servers.address(uri, "STORAGE")
    assert databases.shown(uri) == databases.shown(servers.full(url)) == "postgresql://someone@host:5432/ledger"
    assert make_url(servers.full(url)).password == password
    assert not set("{}") & set(servers.full(url))
    assert databases.shown("https://someone:geheim@host:5000") == "https://someone@host:5000"


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "vae-harness[postgres]" in message(lambda: queue.database("postgresql://someone@host/ledger"))


def test_where_files_of_runs_go(home: Path, monkeypatch: pytest.MonkeyPatch):
    assert tracking.artifact_location("a b") == f"file://{home}/mlruns/artifacts/a%20b"
    monkeypatch.setenv("HARNESS_ARTIFACTS", "s3://bucket/runs/")
    assert tracking.artifact_location("loss") == "s3://bucket/runs/loss"
    monkeypatch.setenv("HARNESS_ARTIFACTS", str(home / "shared"))
    assert tracking.artifact_location("loss") == f"file://{home}/shared/loss"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking.artifact_location("loss") is None
