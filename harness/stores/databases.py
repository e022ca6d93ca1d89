"""SQLite and PostgreSQL databases by their URI: created completely or not at all, and locked across hosts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from harness import paths
from harness.errors import MachineError
from harness.stores import files, servers
from harness.stores.addresses import sqlite_path, sqlite_uri
from harness.stores.locks import lock
from harness.stores.schema import Schema

PATIENCE_S = servers.HOLD_S + 60.0  # longer than a stopped process can hold a lock


def trial_database(storage: str, schema: Schema) -> str:
    """Return the URI of the database of all trial stores, ready for use.

    It is that of the server `storage`, or, if that is empty, of the SQLite file in mlruns/.

    Raises:
        UserError: `storage` is no PostgreSQL URI.
        MachineError: the database cannot be used.
    """
    if not storage:
        return prepare(sqlite_uri(paths.mlruns() / "optuna.db"), schema, "STORAGE")
    servers.address(storage, "STORAGE")  # a server or an error, whatever its scheme
    return prepare(storage, schema, "STORAGE")


def prepare(uri: str, schema: Schema, setting: str) -> str:
    """Create the tables of a schema in a SQLite or PostgreSQL database, unless they are there, and return the URI to open it.

    Other URIs are returned as they are. `setting` is the user's name for the database, for messages.

    Raises:
        UserError: the URI of a PostgreSQL database is malformed.
        MachineError: the database cannot be used, or holds something else.
    """
    try:
        path = sqlite_path(uri)
        if path is not None:
            return sqlite_uri(whole) if (whole := files.make_whole(path, schema)) != path else uri
        elif _on_postgres(uri):
            url = servers.address(uri, setting)
            servers.make_whole(url, schema, PATIENCE_S)
            return servers.with_password(url)
    except SQLAlchemyError as fault:
        reason = str(getattr(fault, "orig", fault)).strip().splitlines()[0][:300]
        raise MachineError(f"cannot make {schema.owner}'s tables in {redacted(uri)}\n{reason}") from None
    return uri


@contextmanager
def exclusive(uri: str, name: str, patience_s: float = PATIENCE_S) -> Iterator[Callable[[], None]]:
    """Hold the lock `name` of a database, so that no other process on any host that uses the database is in such a block.

    Not reentrant.

    Yields:
        A check to call in long blocks: it keeps the lock, and raises MachineError if it was lost, as happens on a server to a
        process that was stopped for minutes.

    Raises:
        MachineError: another process held the lock for `patience_s`.
    """
    if _on_postgres(uri):
        with servers.exclusive(servers.address(uri, "STORAGE"), name, patience_s) as check:
            yield check
    else:
        with lock(paths.mlruns() / "locks" / f"{name.replace('/', '_')}.turn", patience_s=patience_s):
            yield lambda: None


def redacted(uri: str) -> str:
    """Return a URI for messages and logs, without a password."""
    if "@" not in uri and not _on_postgres(uri):
        return uri
    try:
        return servers.redacted(make_url(uri))
    except (ArgumentError, ValueError):
        return "(not a URI)"


def _on_postgres(uri: str) -> bool:
    """Return whether a URI has a scheme of PostgreSQL."""
    return uri.partition(":")[0] in servers.SCHEMES
