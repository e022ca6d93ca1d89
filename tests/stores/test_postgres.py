"""A real PostgreSQL: who comes first builds, every fault has words, and turns end with their holders."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from cold_starts import cold_starts
from holders import child, end, message
from servers import GUARDED, HOST, PASSWORD, Postgres, free_port

from harness import queue, tracking
from harness.errors import MachineError, UserError
from harness.stores import databases, servers
from harness.tracking import library


def empty_homes(server: Postgres, root: Path, number: int) -> list[dict[str, str]]:
    """Empty homes with a database for each store."""
    found = []
    for n in range(number):
        (root / str(n)).mkdir(parents=True)
        tracking_uri, trials_uri = server.uri(server.database()), server.uri(server.database())
        found.append({"home": str(root / str(n)), "tracking": tracking_uri, "trials": trials_uri})
    return found


def name_of(uri: str) -> str:
    return uri.rpartition("/")[2]


@pytest.mark.slow
def test_processes_that_meet_at_empty_databases_all_get_their_work_done(postgres: Postgres, tmp_path: Path):
    homes = empty_homes(postgres, tmp_path, 1 + 3)
    assert cold_starts(what="race", homes=homes, processes=4)["failures"] == []
    for home in homes[1:]:
        assert postgres.run("SELECT count(*) FROM runs WHERE status = 'FINISHED'", name_of(home["tracking"])) == [(4,)]
        assert postgres.run("SELECT count(*) FROM trials WHERE state = 'COMPLETE'", name_of(home["trials"])) == [(4,)]


@pytest.mark.slow
def test_first_starts_that_are_cut_off_are_built_to_the_end_by_the_next(postgres: Postgres, tmp_path: Path):
    homes = empty_homes(postgres, tmp_path, 2 + 6)
    answer = cold_starts(what="cut off", homes=homes, signals=["SIGKILL"] * 4 + ["SIGINT"] * 2, seed=0)
    assert answer["failures"] == []
    assert answer["landed"] >= 4, "too few were cut off while they were at it"
    for home in homes:
        for database in (name_of(home["tracking"]), name_of(home["trials"])):
            assert postgres.run(f"SELECT to_regclass('{servers.MARK}')", database) == [(None,)]


# What is in the way


def test_the_trials_and_the_runs_are_served_to_a_role_with_a_difficult_password(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
):
    uri = queue.database(postgres.uri(postgres.database(GUARDED), GUARDED, PASSWORD))
    with databases.exclusive(uri, "study"):
        study = optuna.create_study(study_name="study", storage=uri)
        study.tell(study.ask(), 1.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.uri(postgres.database(GUARDED), GUARDED, PASSWORD))
    tracking.ensure_store()
    client = library.client()
    experiment = client.create_experiment("study", tracking.artifact_location("study"))
    run = client.create_run(experiment).info.run_id
    client.log_dict(run, {"a": 1}, "spec.json")
    assert Path(client.download_artifacts(run, "spec.json")).read_text(encoding="utf-8")


def test_faults_of_the_server_are_told_before_any_work(postgres: Postgres):
    database = postgres.database()
    told = {
        postgres.uri("missing"): "createdb",
        postgres.uri(database, "nobody_here"): "createuser",
        postgres.uri(database, GUARDED): "no password supplied",
        postgres.uri(database, GUARDED, "geheim"): "check the user and the password",
        postgres.uri(database, GUARDED, PASSWORD): "make the user the database's owner",
        postgres.uri(database) + "?sslmode=require": "SSL",
        postgres.uri(database) + "?sslmod=require": "what follows the ?",
        postgres.uri(database).replace(f":{postgres.port}/", f":{free_port()}/"): "check that the server runs",
        f"postgresql://someone:geheim@no-such-host.invalid/{database}": "check the host's name",
    }
    for uri, said in told.items():
        text = message(lambda uri=uri: queue.database(uri))
        assert message(lambda uri=uri: queue.trial_uri(uri)) == text  # with which a study begins
        assert said in text
        assert "geheim" not in text
        assert PASSWORD not in text
        assert "no-such-host" in text or f"{HOST}:" in text
    assert postgres.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database) == [(0,)]


def test_looking_at_an_empty_database_leaves_it_empty(postgres: Postgres, home: Path, monkeypatch: pytest.MonkeyPatch):
    database = postgres.database()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres.uri(database))
    assert queue.stores_on_record("a_study", "default", postgres.uri(database)) == ([], {})
    assert tracking.experiments() == frozenset()
    assert "whose experiment was deleted" in message(lambda: tracking.check_anew("a_study", "default"), UserError)
    assert not home.exists()
    assert queue.trial_uri(postgres.uri(database)) == "sqlite://"
    assert postgres.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database) == [(0,)]
    queue.database(postgres.uri(database))
    assert name_of(queue.trial_uri(postgres.uri(database))).startswith(database)


def test_a_server_that_does_not_answer_is_given_up():
    pytest.importorskip("psycopg", reason="the driver of the extra `postgres` is not installed")
    with socket.create_server((HOST, 0)) as silent:
        began = time.monotonic()
        uri = f"postgresql://someone:geheim@{HOST}:{silent.getsockname()[1]}/ledger"
        text = message(lambda: queue.database(f"{uri}?connect_timeout=2"))
        assert time.monotonic() - began < 60
        assert servers.address(f"{uri}?connect_timeout=2", "STORAGE").query["connect_timeout"] == "2"
    assert "timeout" in text
    assert "geheim" not in text


def test_an_old_server_is_refused(postgres: Postgres):
    url = servers.address(postgres.uri(postgres.database()), "STORAGE")
    assert "99 or newer is needed" in message(lambda: servers.connected(url, oldest=99).__enter__())


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE customers (name text)", "tables that are not Optuna's"),
        ("CREATE TABLE alembic_version AS SELECT 'dc11669786a5' AS version_num", "each program needs one of its own"),
        ("CREATE TABLE alembic_version AS SELECT 'v2.6.0.a' AS version_num", "optuna storage upgrade"),
    ],
)
def test_a_database_that_is_another_s_is_left_alone(postgres: Postgres, statement: str, said: str):
    database = postgres.database()
    postgres.run(statement, database)
    assert said in message(lambda: queue.database(postgres.uri(database)))
    assert postgres.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database) == [(1,)]


# Turns


@pytest.fixture
def uri(postgres: Postgres) -> str:
    return postgres.uri(postgres.database())


def holder(uri: str, hold_s: float = 60, after: str = "time.sleep(60)") -> subprocess.Popen:
    """A process that has the turn, on a server that hangs up on it after `hold_s`."""
    lines = [
        "import time",
        "from harness import errors",
        "from harness.stores import servers",
        f"with servers.exclusive(servers.address({uri!r}, 'STORAGE'), 'turn', 60, {hold_s}) as check:",
        "    print('in', flush=True)",
        f"    {after}",
    ]
    return child("\n".join(lines))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_turn_ends_with_its_process(uri: str, how: int):
    process = holder(uri)
    said = message(lambda: databases.exclusive(uri, "turn", 0.2).__enter__())
    end(process, how)
    assert "waited 0 s for 'turn'" in said
    assert f"process {process.pid} from 127.0.0.1" in said
    with databases.exclusive(uri, "turn", 30):
        pass


def test_a_turn_ends_with_an_exception_and_names_are_apart(uri: str):
    with pytest.raises(ZeroDivisionError), databases.exclusive(uri, "turn", 30), databases.exclusive(uri, "another", 30):
        1 / 0  # noqa: B018
    with databases.exclusive(uri, "turn", 30), databases.exclusive(uri, "another", 30) as check:
        check()


def test_who_is_stopped_in_its_turn_loses_it_and_learns_of_it(uri: str):
    after = "\n".join(
        [
            "time.sleep(3)",
            "    try:",
            "        check()",
            "    except errors.MachineError as fault:",
            "        print(fault, flush=True)",
            "        raise SystemExit(4)",
        ]
    )
    process = holder(uri, hold_s=1, after=after)
    process.send_signal(signal.SIGSTOP)
    try:
        with databases.exclusive(uri, "turn", 60):
            pass
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 4
    assert process.stdout is not None
    assert process.stdout.readline().startswith("lost the lock 'turn'")
    process.stdout.close()


def test_a_long_turn_is_kept_by_its_checks(uri: str):
    with servers.exclusive(servers.address(uri, "STORAGE"), "turn", 2, hold_s=3) as check:
        for _ in range(15):
            time.sleep(0.3)
            check()
        with pytest.raises(MachineError, match="held by"):
            databases.exclusive(uri, "turn", 0.1).__enter__()


def test_turns_of_processes_do_not_overlap(uri: str, tmp_path: Path):
    number = tmp_path / "number"
    number.write_text("0", encoding="utf-8")
    code = f"""
from pathlib import Path
from harness.stores import databases
number = Path({str(number)!r})
for _ in range(20):
    with databases.exclusive({uri!r}, "turn"):
        number.write_text(str(1 + int(number.read_text())))
"""
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [p.wait(60) for p in both] == [0, 0]
    assert number.read_text(encoding="utf-8") == "40"
