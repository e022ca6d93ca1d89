"""Whose tables a database holds, by the alembic revision that both Optuna and MLflow leave in it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from harness.errors import MachineError

REVISION_TABLE = "alembic_version"


@dataclass(frozen=True)
class Schema:
    """The tables of one program. `build(uri)` makes them in an empty database; `revisions()` are all it knows, the newest first."""

    owner: str
    build: Callable[[str], None]
    revisions: Callable[[], Sequence[str]]
    upgrade: str  # the command that brings an older database up to date, short of its URI

    def check(self, where: str, tables: Collection[str], revision: str | None) -> None:
        """Refuse a database that is not this version's. Nothing is upgraded unasked: other programs may be using it."""
        newest, *older = self.revisions()
        if revision == newest:
            return
        if revision in older:
            raise MachineError(
                f"{where} was made by an older {self.owner} (schema {revision}, this one has {newest})\n"
                f"back it up, then: {self.upgrade} URI"
            )
        if revision is not None:
            raise MachineError(
                f"{where} has schema {revision}: a newer {self.owner} made it, or another program\n"
                f"update {self.owner}, or name another database: each program needs one of its own"
            )
        held = f"tables that are not {self.owner}'s, or only half of them" if tables else "no tables"
        raise MachineError(f"{where} holds {held}\nname an empty database, or move this one away")
