"""PostgreSQL, for drivers on several hosts: its address, what is wrong with it in words, its locks."""

import hashlib
import importlib.util
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from harness.errors import MachineError, UserError
from harness.stores.schema import REVISION_TABLE, Schema

if TYPE_CHECKING:
    import psycopg

SCHEMES = ("postgresql+psycopg", "postgresql", "postgres")
CONNECT_S = 5  # for each address of a host name, which are seldom more than two
OLDEST = 14  # the first with idle_session_timeout
# A holder that does nothing for so long, stopped or cut off, loses its lock: the server hangs up.
HOLD_S = 120
MARK = "harness_half_built"
# A peer that vanished without a word, as a host does that loses power, is given up after 30 + 3 * 10 s.
ALIVE = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
HINTS = (
    (r"password authentication failed", "check the user and the password, in the URI or in ~/.pgpass"),
    (r"no password supplied", "give the password in ~/.pgpass or PGPASSWORD"),
    (r"no pg_hba.conf entry", "the server's pg_hba.conf says which users and hosts may come in"),
    (r'^FATAL: +role ".*" does not exist', "make the role on the server: createuser NAME"),
    (r'^FATAL: +database ".*" does not exist', "make it on the server: createdb --owner USER NAME"),
    (r"resolve host|translate host", "check the host's name"),
    (r"invalid connection option", "check what follows the ? of the URI"),
    (r"refused|timeout|unreachable|No route", "check that the server runs, listens on that address and lets this host in"),
)


def address(uri: str, setting: str) -> URL:
    """A PostgreSQL URI in parts, for the driver that is used here. UserError where it is none."""
    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):  # their messages may hold the password
        raise UserError(f"{setting} is not a URI\nwrite postgresql+psycopg://USER@HOST:PORT/DATABASE") from None
    if url.drivername not in SCHEMES:
        raise UserError(
            f"{setting}: unknown scheme {url.drivername!r}\nwrite postgresql+psycopg://USER@HOST:PORT/DATABASE, "
            "or leave it out: SQLite in mlruns/ serves one host"
        )
    if "@" in (url.host or ""):
        raise UserError(
            f"{setting} has more than one @\nwrite an @ in a user or password as %40, or keep the password in ~/.pgpass"
        )
    if not url.database:
        raise UserError(f"{setting} names no database\nwrite {shown(url)}/DATABASE")
    if importlib.util.find_spec("psycopg") is None:
        raise MachineError("PostgreSQL needs the driver psycopg\ninstall the extra: pip install 'vae-harness[postgres]'")
    return url.set(drivername="postgresql+psycopg").update_query_dict(
        {k: v for k, v in {"connect_timeout": str(CONNECT_S), **ALIVE}.items() if k not in url.query}
    )


def full(url: URL) -> str:
    """The URI with its password: for libraries, never for people."""
    return url.render_as_string(hide_password=False)


def shown(url: URL) -> str:
    """The URI for people: no password, no settings."""
    port = f":{url.port}" if url.port else ""
    user = f"{url.username}@" if url.username else ""
    scheme = "postgresql" if url.drivername in SCHEMES else url.drivername
    return f"{scheme}://{user}{url.host or ''}{port}/{url.database or ''}".removesuffix("/")


@contextmanager
def connected(url: URL) -> Iterator["psycopg.Connection"]:
    """A connection of its own, each statement a transaction. MachineError with a hint where the server cannot be used."""
    import psycopg

    settings: dict[str, Any] = url.translate_connect_args(username="user", database="dbname")
    settings["application_name"] = f"harness {socket.gethostname()[:32]} process {os.getpid()}"
    try:
        connection = psycopg.connect(**settings | dict(url.query), autocommit=True)
    except psycopg.Error as fault:
        raise MachineError("\n".join([f"cannot use {shown(url)}", *_said(fault)])) from None
    with connection:
        version = connection.info.server_version // 10_000
        if version < OLDEST:
            raise MachineError(f"{shown(url)} is PostgreSQL {version}: {OLDEST} or newer is needed")
        yield connection


def _said(fault: Exception) -> list[str]:
    """The server's own words in a line, and what would help."""
    lines = str(fault).strip().splitlines() or [type(fault).__name__]
    words = re.sub(r"^connection failed: |connection to server at .*? failed: ", "", lines[0])[:300]
    return [words, *[hint for symptom, hint in HINTS if re.search(symptom, words)][:1]]


@contextmanager
def exclusive(url: URL, name: str, patience_s: float) -> Iterator[Callable[[], None]]:
    """Hold an advisory lock of the server. Yields a check that raises MachineError where the lock was lost meanwhile.

    It is its connection's: it ends with the block, with an exception, with this process, 60 s after this host fell silent. A
    process that is stopped (SIGSTOP, a suspended laptop) keeps its connection, so the server hangs up on a holder that does
    nothing for `HOLD_S`; when it wakes, its next check fails before it writes.
    """
    import psycopg

    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    with connected(url) as connection:
        connection.execute(
            "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;"
            f"SET idle_session_timeout = '{HOLD_S}s'; SET lock_timeout = '{max(1, round(patience_s * 1000))}ms'"
        )
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", [key])
        except psycopg.errors.LockNotAvailable:
            holder = _holder(connection, key)
            raise MachineError(f"waited {patience_s:.0f} s for {name!r} on {shown(url)}\nheld by {holder}") from None

        def check() -> None:
            try:
                connection.execute("SELECT 1")
            except psycopg.OperationalError as fault:
                raise MachineError(f"lost the lock {name!r} on {shown(url)}\n{_said(fault)[0]}") from None

        yield check
        check()


def _holder(connection: "psycopg.Connection", key: int) -> str:
    """Who has an advisory lock, and since when."""
    found = connection.execute(
        """SELECT coalesce(nullif(a.application_name, ''), 'session ' || l.pid), coalesce(host(a.client_addr), 'the same host'),
                  extract(epoch FROM now() - coalesce(a.query_start, a.backend_start))
           FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
           WHERE l.locktype = 'advisory' AND l.granted AND (l.classid::bigint << 32) | l.objid::bigint = %s""",
        [key],
    ).fetchone()
    return f"{found[0]} from {found[1]}, for {found[2] or 0:.0f} s or more" if found else "nobody any more: try again"


def make_whole(url: URL, schema: Schema, patience_s: float) -> None:
    """Make sure that a database holds this schema, whoever else is at it.

    A table of our own stands in it while it is built, so that a half-built one is told from one that another program owns: the
    former is built to its end by who comes next.
    """
    with connected(url) as connection:
        if _whole(connection, url, schema):
            return
    with exclusive(url, "schema", patience_s) as check, connected(url) as connection:
        if _whole(connection, url, schema):
            return
        import psycopg

        try:
            connection.execute(f"CREATE TABLE IF NOT EXISTS {MARK} ()")
        except psycopg.errors.InsufficientPrivilege as fault:
            owner = "make the user the database's owner: ALTER DATABASE ... OWNER TO ..."
            raise MachineError(f"{shown(url)}: {_said(fault)[0]}\n{owner}") from None
        schema.build(full(url))
        check()
        connection.execute(f"DROP TABLE {MARK}")


def _whole(connection: "psycopg.Connection", url: URL, schema: Schema) -> bool:
    """Whether a database is built; MachineError where something else is in it."""
    tables = {
        name
        for (name,) in connection.execute(
            "SELECT c.relname FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace"
        )
    }
    if MARK in tables or not tables:
        return False
    found = connection.execute(f"SELECT version_num FROM {REVISION_TABLE}").fetchone() if REVISION_TABLE in tables else None
    schema.check(shown(url), tables, found[0] if found else None)
    return True
