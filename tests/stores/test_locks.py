"""Locks end with their holders, and addresses of servers are understood and show no password."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from holders import child, end, message
from sqlalchemy import URL, make_url

from harness import paths, queue
from harness.errors import UserError
from harness.stores import databases, locks, servers


def turn_holder(uri: str) -> subprocess.Popen:
    within = "print('in', flush=True); time.sleep(60)"
    return child(f"import time; from harness.stores import databases\nwith databases.exclusive({uri!r}, 'turn'): {within}")


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
    pytest.importorskip("psycopg", reason="the driver of the extra `postgres` is not installed")
    url = servers.address(uri, "STORAGE")
    assert databases.redacted(uri) == databases.redacted(servers.with_password(url)) == "postgresql://someone@host:5432/ledger"
    assert make_url(servers.with_password(url)).password == password
    assert not set("{}") & set(servers.with_password(url))
    assert databases.redacted("https://someone:geheim@host:5000") == "https://someone@host:5000"


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as where it is not installed
    assert "vae-harness[postgres]" in message(lambda: queue.database("postgresql://someone@host/ledger"))
