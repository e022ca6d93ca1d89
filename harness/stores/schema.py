"""The owner of a database's tables, told by the alembic revision that both Optuna and MLflow write to it."""

import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from harness import paths
from harness.errors import MachineError
from harness.stores.addresses import sqlite_uri

REVISION_TABLE = "alembic_version"


@dataclass(frozen=True)
class Schema:
    """The tables of one program.

    Attributes:
        owner: the program's name, which is also that of its package.
        build: a function that creates the tables in the empty database of a URI.
        revisions: a function that returns all revisions that the installed version knows, the newest first.
        upgrade: the command that brings an older database up to date, to be followed by the URI.
    """

    owner: str
    build: Callable[[str], None]
    revisions: Callable[[], Sequence[str]]
    upgrade: str

    def check(self, database: str | Path, tables: Collection[str], revision: str | None) -> None:
        """Raise MachineError unless the revision of a database is the installed version's.

        Nothing is upgraded without the user's command, since other programs may be using the database. Asking a program for its
        revisions takes half a second, so that the newest one is noted in mlruns/checked for the version that gave it.

        Args:
            database: its file, or its name for messages.
            tables: the names of its tables.
            revision: its alembic revision; None if it has none.
        """
        known = self._note(revision)
        if known.exists():
            return
        newest, *older = self.revisions()
        if revision == newest:
            if paths.mlruns().exists():  # a start that is refused makes none
                known.parent.mkdir(exist_ok=True)
                known.touch()
            return
        if revision in older:
            file = shlex.quote(str(database))
            backup = f"cp {file} {file}.backup" if isinstance(database, Path) else f"pg_dump {file} > backup.sql"
            uri = shlex.quote(sqlite_uri(database)) if isinstance(database, Path) else file
            raise MachineError(
                f"{database} was made by an older {self.owner} (schema {revision}, this one has {newest})\n"
                f"back it up: {backup}\nthen: {self.upgrade} {uri}"
            )
        if revision is not None:
            raise MachineError(
                f"{database} has schema {revision}: a newer {self.owner} made it, or another program\n"
                f"update {self.owner}, or name another database: each program needs one of its own"
            )
        content = f"tables that are not {self.owner}'s, or only half of them" if tables else "no tables"
        raise MachineError(f"{database} holds {content}\nname an empty database, or move this one away")

    def _note(self, revision: str | None) -> Path:
        """Return the file whose presence says that a revision is the newest of the installed version."""
        content = f"schema {self.owner} {metadata.version(self.owner)} {revision}"
        return paths.mlruns() / "checked" / sha256(content.encode()).hexdigest()[:16]
