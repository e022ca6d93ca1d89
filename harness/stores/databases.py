"""The databases of a home folder or of a lab: made whole or not at all, by their URI, and locked across hosts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from harness import paths
from harness.errors import MachineError
from harness.stores import files, servers
from harness.stores.locks import lock
from harness.stores.schema import Schema

PATIENCE_S = servers.HOLD_S + 60.0  # longer than a stopped process can hold a lock


def trial_database(storage: str, schema: Schema) -> str:
    """The URI of the ledgers, ready for use: the named server's, or for no name the SQLite file in mlruns/."""
    if not storage:
        return prepare(f"sqlite:///{paths.mlruns() / 'optuna.db'}", schema, "STORAGE")
    servers.address(storage, "STORAGE")  # a server or an error, whatever its scheme
    return prepare(storage, schema, "STORAGE")


def prepare(uri: str, schema: Schema, setting: str) -> str:
    """Make a database whole where it is SQLite or PostgreSQL, and return its URI; others are left to whoever opens them.

    `setting`: what the user calls it, for messages.
    """
    try:
        if uri.startswith("sqlite:///"):
            files.make_whole(Path(uri.removeprefix("sqlite:///").partition("?")[0]), schema)
        elif _on_postgres(uri):
            url = servers.address(uri, setting)
            servers.make_whole(url, schema, PATIENCE_S)
            return servers.full(url)
    except SQLAlchemyError as fault:
        said = str(getattr(fault, "orig", fault)).strip().splitlines()[0][:300]
        raise MachineError(f"cannot make {schema.owner}'s tables in {shown(uri)}\n{said}") from None
    return uri


@contextmanager
def exclusive(uri: str, name: str, patience_s: float = PATIENCE_S) -> Iterator[Callable[[], None]]:
    """A block that no other process is in, on any host that uses this database. MachineError after `patience_s`.

    Yields a check for long blocks: it raises where the lock was lost, as on a server it is to a process that was stopped for
    minutes. Not reentrant.
    """
    if _on_postgres(uri):
        with servers.exclusive(servers.address(uri, "STORAGE"), name, patience_s) as check:
            yield check
    else:
        with lock(paths.mlruns() / "locks" / f"{name.replace('/', '_')}.turn", patience_s=patience_s):
            yield lambda: None


def shown(uri: str) -> str:
    """A URI as people may see it: without a password."""
    if "@" not in uri and not _on_postgres(uri):
        return uri
    try:
        return servers.shown(make_url(uri))
    except (ArgumentError, ValueError):
        return "(not a URI)"


def _on_postgres(uri: str) -> bool:
    return uri.partition(":")[0] in servers.SCHEMES
