"""Homes and stores that cannot be used: refused by name before anything is written, or read as far as they can be."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from refusals import assert_refused, fingerprint, run

from harness import cli, paths, queue, tracking
from harness.queue.store import OPTUNA_SCHEMA
from harness.stores import addresses, files, homes

Says = Callable[..., str]
DIGITS = '''"""Is it refused?"""
from harness import Ablation, Budget, TrialSpec

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=600),
    arms={"bce": {}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=1, seeds=range(1))},
)
'''


@pytest.fixture
def refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Says:
    """Run a command that is refused with this code, says these words in at most six lines, and changes nothing."""
    (tmp_path / "plan.py").write_text(DIGITS)

    def ask(code: int, *says: str, command: str = "study", at: Path = home) -> str:
        before = fingerprint(at)
        assert cli.main([command, str(tmp_path / "plan.py")]) == code
        out, err = capsys.readouterr()
        assert not out
        assert err.startswith("harness: ")
        assert len(err.strip().splitlines()) <= 6
        for words in says:
            assert words in err
        assert fingerprint(at) == before
        return err

    return ask


@pytest.fixture
def trial_store(home: Path, mlflow_store: Path) -> Path:
    """The trial store of a home with both, whose schemas were looked at before."""
    queue.database()
    tracking.ensure_store()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return home / "mlruns" / "optuna.db"


# Paths


@pytest.mark.parametrize(
    "name",
    ["a b", "a%20b", "a%b", "a?b", "a#b", "it's", 'so "so"', "a;b", "a&b=c", "ünï", "new\nline", "~here", "-x", "a" * 200],
    ids=lambda name: f"R4-{name[:9]!r}",
)
def test_a_database_has_an_address_in_any_folder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / name))
    homes.check_path()
    uri = queue.database()
    assert addresses.sqlite_path(uri) == tmp_path / name / "mlruns" / "optuna.db"
    assert [p.name for p in (tmp_path / name / "mlruns").glob("*.db")] == ["optuna.db"]
    assert queue.TrialStore("a", ["minimize"], uri).trials() == []


@pytest.mark.parametrize("command", ["study", "report", "doctor", "verify", "plan"], ids=lambda c: f"row53-non-utf-8-{c}")
def test_a_home_whose_name_is_no_text_is_refused(command: str, refused: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", "/tmp/x\udcffy")
    refused(2, r"b'/tmp/x\xffy/mlruns' is not UTF-8", "HARNESS_HOME", command=command)


@pytest.mark.parametrize(
    ("home_folder", "says"),
    [
        ("~nobody-of-this-name/x", "HARNESS_HOME=~nobody-of-this-name/x: no user here has that name"),
        ("/tmp/" + "y" * 300, "file name too long"),
        ("/tmp/" + "/".join(["y" * 200] * 25), "file name too long"),
        ("/dev/null", "/dev/null is a file, not a folder"),
        ("/dev/null/below", "/dev/null is a file, not a folder"),
    ],
    ids=["R13-no-such-user", "row53-long-name", "row53-long-path", "row53-file", "row53-below-a-file"],
)
@pytest.mark.parametrize("command", ["study", "report", "verify"])
def test_a_home_that_cannot_be_is_refused(
    home_folder: str, says: str, command: str, refused: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", home_folder)
    refused(2, says, command=command)


def test_r13_a_tilde_is_the_home_folder_and_a_relative_home_lies_where_the_command_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name, chosen in (("HARNESS_HOME", paths.home), ("HARNESS_DATA", paths.data)):
        for written in ("~/x", "x", "./y/../x"):
            monkeypatch.setenv(name, written)
            assert chosen() == tmp_path / "x"


def test_row29_mlruns_that_is_a_file_is_refused(home: Path, refused: Says) -> None:
    home.mkdir()
    (home / "mlruns").write_text("notes")
    refused(2, f"{home / 'mlruns'} is a file, not a folder")


# What cannot be written to. Root may write anywhere: what the system answers is pretended.


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Pretend that a file or folder, with what is in it, cannot be written to."""
    real = os.access

    def forbid(place: Path) -> None:
        def access(path: Path, mode: int) -> bool:
            return not (mode & os.W_OK and Path(path).is_relative_to(place)) and real(path, mode)

        monkeypatch.setattr(os, "access", access)

    return forbid


@pytest.mark.parametrize("what", ["optuna.db", "mlflow.db"], ids=lambda n: f"row28-{n}")
@pytest.mark.usefixtures("trial_store")
def test_a_database_that_cannot_be_written_to_is_refused_by_a_study(
    home: Path, what: str, refused: Says, read_only: Callable[[Path], None]
) -> None:
    read_only(home / "mlruns" / what)
    refused(4, f"cannot write {home / 'mlruns' / what}: permission denied", "HARNESS_HOME")


@pytest.mark.parametrize("what", ["", "reports", "artifacts", "locks"], ids=lambda n: f"row29-{n or 'mlruns'}")
@pytest.mark.usefixtures("trial_store")
def test_a_folder_that_cannot_be_written_to_is_refused_by_a_study(
    home: Path, what: str, refused: Says, read_only: Callable[[Path], None]
) -> None:
    (home / "mlruns" / what).mkdir(exist_ok=True)
    read_only(home / "mlruns" / what)
    refused(4, f"cannot write {home / 'mlruns' / what}: permission denied")


def test_row29_a_home_that_cannot_be_made_is_refused(tmp_path: Path, refused: Says, read_only: Callable[[Path], None]) -> None:
    read_only(tmp_path)
    refused(4, f"cannot write {tmp_path}: permission denied")


def test_row28_what_cannot_be_written_to_is_read_from_a_copy(
    trial_store: Path, read_only: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    store = queue.TrialStore("a", ["minimize"], queue.database())
    store.note_study({"a": "note"})
    before = fingerprint(trial_store.parent)
    read_only(trial_store.parent)
    uri = queue.database()
    assert addresses.sqlite_path(uri) != trial_store
    assert queue.TrialStore("a", ["minimize"], uri).notes()["a"] == "note"
    assert f"{trial_store} cannot be written to: it is read from a copy" in capsys.readouterr().err
    assert fingerprint(trial_store.parent) == before


# Addresses of the tracking store


@pytest.mark.parametrize(
    "uri", ["foo://x", "mysql://x/y", "file:///x", "nonsense", "sqlite://", "/x/mlruns", "databricks", "ftp://x", "http://[::1"]
)
@pytest.mark.parametrize("command", ["study", "report", "plan", "verify", "doctor"], ids=lambda name: f"row24-{name}")
def test_an_address_where_runs_cannot_be_recorded_is_refused(
    uri: str, command: str, refused: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    refused(2, f"MLFLOW_TRACKING_URI={uri}: runs cannot be recorded there", "sqlite:////", "postgresql+psycopg://", command=command)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "http://no.such.host.invalid:5000"], ids=["row23-refused", "row23-no-host"])
def test_a_server_that_does_not_answer_is_said_at_once(uri: str, refused: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    refused(4, f"no MLflow server answers at MLFLOW_TRACKING_URI={uri}", "leave the variable out")


# Files that hold something else


def alter(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize("name", ["optuna.db", "mlflow.db"])
@pytest.mark.parametrize("row", ["row25-older", "row25-newer", "row26-half-built", "row27-no-database", "row27-damaged"])
def test_a_database_that_is_not_what_it_should_be_is_named_at_start(trial_store: Path, name: str, row: str, refused: Says) -> None:
    file = trial_store.with_name(name)
    schema = OPTUNA_SCHEMA if name == "optuna.db" else tracking.MLFLOW_SCHEMA
    says = [str(file)]
    match row:
        case "row25-older":
            alter(file, f"UPDATE alembic_version SET version_num = '{schema.revisions()[1]}'")
            says += [f"cp {file} {file}.backup", f"{schema.upgrade} sqlite:///{file}", f"made by an older {schema.owner}"]
        case "row25-newer":
            alter(file, "UPDATE alembic_version SET version_num = 'zzz'")
            says += [f"a newer {schema.owner} made it", f"update {schema.owner}"]
        case "row26-half-built":
            alter(file, "DROP TABLE alembic_version")
            says += ["or only half of them", "move this one away"]
        case "row27-no-database":
            file.write_text("precious notes\n" * 1_000)
            says += ["is not a SQLite database", f"mv {file} {file}.damaged"]
        case "row27-damaged":
            content = bytearray(file.read_bytes())
            middle = len(content) // 2 // 4096 * 4096
            content[middle : middle + 3 * 4096] = b"\xa5" * (3 * 4096)
            file.write_bytes(content)
            says += ["is damaged", f"mv {file} {file}.damaged"]
    files._SOUND.clear()  # as a new process
    refused(4, *says)


@pytest.mark.parametrize("command", ["verify", "replay"])
def test_nothing_on_record_is_said_without_mlflow(command: str, tmp_path: Path) -> None:
    told = run([command, "loss_ablation"], tmp_path / "home")
    assert_refused(told, 2, "nothing is on record: there is no ", "mlflow.db")
    assert not told.imported
    assert not (tmp_path / "home").exists()


def test_row31_a_network_file_system_gets_no_write_ahead_log_and_a_word(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several hosts take a PostgreSQL server: docs/scaling.md, which the word names."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/x {tmp_path} nfs4 rw 0 0", encoding="utf-8")
    file = home / "mlruns" / "optuna.db"
    assert files.make_whole(file, OPTUNA_SCHEMA, version=(3, 99, 0), mounts=mounts) == file
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    said = capsys.readouterr().err
    assert "safe for one host at a time" in said
    assert "docs/scaling.md" in said


def test_row53_a_linked_home_is_the_folder_that_it_links_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "link"))
    assert paths.home() == tmp_path / "real"
    shutil.rmtree(tmp_path / "real")
