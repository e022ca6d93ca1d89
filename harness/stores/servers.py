"""PostgreSQL, for drivers on several hosts: addresses, connections, error messages, locks, and the creation of tables."""

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
OLDEST = 14  # the first version with idle_session_timeout
# A lock's holder that does nothing for so long, stopped or cut off, loses the lock: the server closes its connection.
HOLD_S = 120
MARK = "harness_half_built"  # the table that a database has while its schema is built
# A peer that vanishes without closing its connection, such as a host that loses power, is given up after 30 + 3 * 10 s.
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
    """Return a PostgreSQL URI as a URL of SQLAlchemy for the driver psycopg, with timeouts and keepalives unless it sets them.

    `setting` is the user's name for the URI, for messages.

    Raises:
        UserError: it is not the URI of a PostgreSQL database.
        MachineError: psycopg is not installed.
    """
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
        raise UserError(f"{setting} names no database\nwrite {redacted(url)}/DATABASE")
    if importlib.util.find_spec("psycopg") is None:
        raise MachineError("PostgreSQL needs the driver psycopg\ninstall the extra: pip install 'vae-harness[postgres]'")
    return url.set(drivername="postgresql+psycopg").update_query_dict(
        {k: v for k, v in {"connect_timeout": str(CONNECT_S), **ALIVE}.items() if k not in url.query}
    )


def with_password(url: URL) -> str:
    """Return the URI with its password, for libraries alone: never for messages or logs."""
    return url.render_as_string(hide_password=False)


def redacted(url: URL) -> str:
    """Return the URI for messages and logs, without password and options."""
    port = f":{url.port}" if url.port else ""
    user = f"{url.username}@" if url.username else ""
    scheme = "postgresql" if url.drivername in SCHEMES else url.drivername
    return f"{scheme}://{user}{url.host or ''}{port}/{url.database or ''}".removesuffix("/")


@contextmanager
def connected(url: URL, oldest: int = OLDEST) -> Iterator["psycopg.Connection"]:
    """Open a new connection, in which every statement is a transaction, and close it with the block.

    Raises:
        MachineError: the server cannot be used; the message has a hint if the reason is a known one.
    """
    import psycopg

    settings: dict[str, Any] = url.translate_connect_args(username="user", database="dbname")
    settings["application_name"] = f"harness {socket.gethostname()[:32]} process {os.getpid()}"
    try:
        connection = psycopg.connect(**settings | dict(url.query), autocommit=True)
    except psycopg.Error as fault:
        raise MachineError("\n".join([f"cannot use {redacted(url)}", *_explained(fault)])) from None
    with connection:
        version = connection.info.server_version // 10_000
        if version < oldest:
            raise MachineError(f"{redacted(url)} is PostgreSQL {version}: {oldest} or newer is needed")
        yield connection


def _explained(fault: Exception) -> list[str]:
    """Return the server's message as one line, and a hint if there is one for it."""
    lines = str(fault).strip().splitlines() or [type(fault).__name__]
    message = re.sub(r"^connection failed: |connection to server at .*? failed: ", "", lines[0])[:300]
    return [message, *[hint for symptom, hint in HINTS if re.search(symptom, message)][:1]]


@contextmanager
def exclusive(url: URL, name: str, patience_s: float, hold_s: float = HOLD_S) -> Iterator[Callable[[], None]]:
    """Hold an advisory lock of the server.

    The lock belongs to its connection: it ends with the block, with an exception, with this process, or 60 s after this host
    became unreachable. A process that is stopped (SIGSTOP, a suspended laptop) keeps its connection, so the server closes the
    connection of a holder that does nothing for `hold_s`; when that process goes on, its next check fails before it writes.

    Yields:
        A check that keeps the lock, and raises MachineError if it was lost.

    Raises:
        MachineError: another process held the lock for `patience_s`, or the lock was lost within the block.
    """
    import psycopg

    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    with connected(url) as connection:
        connection.execute(
            "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;"
            f"SET idle_session_timeout = '{round(hold_s * 1000)}ms'; SET lock_timeout = '{max(1, round(patience_s * 1000))}ms'"
        )
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", [key])
        except psycopg.errors.LockNotAvailable:
            holder = _holder(connection, key)
            raise MachineError(f"waited {patience_s:.0f} s for {name!r} on {redacted(url)}\nheld by {holder}") from None

        def check() -> None:
            """Raise MachineError if the connection, and with it the lock, is lost."""
            try:
                connection.execute("SELECT 1")
            except psycopg.OperationalError as fault:
                raise MachineError(f"lost the lock {name!r} on {redacted(url)}\n{_explained(fault)[0]}") from None

        yield check
        check()


def _holder(connection: "psycopg.Connection", key: int) -> str:
    """Return who holds an advisory lock and for how long, in words."""
    row = connection.execute(
        """SELECT coalesce(nullif(a.application_name, ''), 'session ' || l.pid), coalesce(host(a.client_addr), 'the same host'),
                  extract(epoch FROM now() - coalesce(a.query_start, a.backend_start))
           FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
           WHERE l.locktype = 'advisory' AND l.granted AND (l.classid::bigint << 32) | l.objid::bigint = %s""",
        [key],
    ).fetchone()
    return f"{row[0]} from {row[1]}, for {row[2] or 0:.0f} s or more" if row else "nobody any more: try again"


def is_whole(url: URL, schema: Schema) -> bool:
    """Return whether a database holds this schema; False if it has no tables, or not all of them yet. Nothing is written.

    Raises:
        MachineError: the server cannot be used, the database holds something else, or the user may not create what it lacks.
    """
    with connected(url) as connection:
        whole = _whole(connection, url, schema)
        (allowed,) = connection.execute("SELECT has_schema_privilege(current_schema(), 'CREATE')").fetchone() or (False,)
    if not whole and not allowed:
        raise MachineError(
            f"{redacted(url)}: the user may not create {schema.owner}'s tables\n"
            "make the user the database's owner: ALTER DATABASE ... OWNER TO ..."
        )
    return whole


def make_whole(url: URL, schema: Schema, patience_s: float) -> None:
    """Make sure that a database holds this schema, even if several processes do so at the same time.

    While the schema is built the database has the table `MARK`, which tells a half-built database from one of another program; the
    next process completes a half-built one.

    Raises:
        MachineError: the server cannot be used, the user may not create tables, or the database holds something else.
    """
    if is_whole(url, schema):
        return
    with exclusive(url, "schema", patience_s) as check, connected(url) as connection:
        if _whole(connection, url, schema):
            return
        connection.execute(f"CREATE TABLE IF NOT EXISTS {MARK} ()")
        schema.build(with_password(url))
        check()
        connection.execute(f"DROP TABLE {MARK}")


def _whole(connection: "psycopg.Connection", url: URL, schema: Schema) -> bool:
    """Return whether a database holds the complete schema; raise MachineError if it holds something else."""
    tables = {
        name
        for (name,) in connection.execute(
            "SELECT c.relname FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace"
        )
    }
    if MARK in tables or not tables:
        return False
    row = connection.execute(f"SELECT version_num FROM {REVISION_TABLE}").fetchone() if REVISION_TABLE in tables else None
    schema.check(redacted(url), tables, row[0] if row else None)
    return True
