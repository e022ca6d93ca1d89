"""Stores are whole or not at all, and what is in the way of one is told in words."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from cold_starts import cold_starts
from holders import message
from sqlalchemy import create_engine, text

from harness import queue, tracking
from harness.queue.store import OPTUNA_SCHEMA
from harness.stores import databases, files, schema


def empty_homes(root: Path, number: int) -> list[dict[str, str]]:
    """Empty homes."""
    homes = [root / str(n) for n in range(number)]
    for home in homes:
        home.mkdir(parents=True)
    return [{"home": str(h), "tracking": "", "trials": ""} for h in homes]


def answer(database: Path, question: str) -> object:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(question).fetchone()[0]


def integrity(home: str) -> set[object]:
    return {answer(Path(home) / "mlruns" / name, "PRAGMA integrity_check") for name in ("mlflow.db", "optuna.db")}


@pytest.mark.slow
def test_processes_that_meet_at_empty_stores_all_get_their_work_done(tmp_path: Path):
    homes = empty_homes(tmp_path, 1 + 3)
    assert cold_starts(what="race", homes=homes, processes=4)["failures"] == []
    for home in (h["home"] for h in homes[1:]):
        assert integrity(home) == {"ok"}
        assert answer(Path(home) / "mlruns" / "mlflow.db", "SELECT count(*) FROM runs WHERE status = 'FINISHED'") == 4
        assert answer(Path(home) / "mlruns" / "optuna.db", "SELECT count(*) FROM trials WHERE state = 'COMPLETE'") == 4


@pytest.mark.slow
def test_first_starts_that_are_cut_off_leave_stores_that_work(tmp_path: Path):
    homes = empty_homes(tmp_path, 2 + 6)
    answer = cold_starts(what="cut off", homes=homes, signals=["SIGKILL"] * 4 + ["SIGINT"] * 2, seed=0)
    assert answer["failures"] == []
    assert answer["landed"] >= 4, "too few were cut off while they were at it"
    assert {verdict for home in homes for verdict in integrity(home["home"])} == {"ok"}
    assert not [leftover for home in homes for leftover in Path(home["home"], "mlruns").glob("*.building*")]


# What is in the way of a database


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
def test_a_trial_store_of_another_version_is_refused_and_not_touched(home: Path, revision: str | None, said: str):
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


def test_a_look_at_a_database_elsewhere_makes_no_home(home: Path, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", databases.sqlite_uri(mlflow_store))
    monkeypatch.setenv("HARNESS_HOME", str(home / "another"))
    tracking.check_store()
    assert not (home / "another").exists()


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


def mounted(folder: Path, system: str) -> Path:
    """A list of mounts that has the folder on one of its own."""
    mounts = folder / f"mounts-{system}"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {folder} {system} rw 0 0", encoding="utf-8")
    return mounts


def test_the_journal_is_chosen_by_version_and_file_system(home: Path, tmp_path: Path):
    file = home / "mlruns" / "optuna.db"

    def journal(version: tuple[int, ...], system: str) -> object:
        files.make_whole(file, OPTUNA_SCHEMA, version=version, mounts=mounted(tmp_path, system))
        return answer(file, "PRAGMA journal_mode")

    assert journal((3, 51, 2), "ext4") == "delete"
    assert journal((3, 51, 3), "ext4") == "wal"
    assert journal((3, 51, 3), "nfs4") == "delete"


def test_a_store_that_others_have_open_keeps_its_journal(home: Path, tmp_path: Path):
    file = home / "mlruns" / "optuna.db"
    files.make_whole(file, OPTUNA_SCHEMA, version=(3, 51, 2))
    with closing(sqlite3.connect(file)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM studies").fetchall()
        began = time.monotonic()
        files.make_whole(file, OPTUNA_SCHEMA, version=(3, 51, 3), mounts=mounted(tmp_path, "ext4"))
        assert time.monotonic() - began < files.SQLITE_PATIENCE_S / 2
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


def test_a_network_file_system_is_said_once(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for _ in range(2):
        files.make_whole(home / "mlruns" / "optuna.db", OPTUNA_SCHEMA, mounts=mounted(tmp_path, "lustre"))
    assert capsys.readouterr().err.count("lies on lustre") == 1


def test_where_files_of_runs_go(home: Path, monkeypatch: pytest.MonkeyPatch):
    assert tracking.artifact_location("a b") == f"file://{home}/mlruns/artifacts/a%20b"
    monkeypatch.setenv("HARNESS_ARTIFACTS", "s3://bucket/runs/")
    assert tracking.artifact_location("loss") == "s3://bucket/runs/loss"
    monkeypatch.setenv("HARNESS_ARTIFACTS", str(home / "shared"))
    assert tracking.artifact_location("loss") == f"file://{home}/shared/loss"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking.artifact_location("loss") is None
