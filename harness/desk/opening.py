"""The ledger's database: SQLite in mlruns/, or a server that drivers share."""

from collections.abc import Sequence

import optuna

from harness import stores


def database(storage: str = "") -> str:
    """The URI of the ledgers: those on a server, or the file in mlruns/; made whole if they are not there."""
    return stores.ledger(storage, SCHEMA)


def _build(uri: str) -> None:
    storage = optuna.storages.RDBStorage(uri)
    storage.remove_session()
    storage.engine.dispose()


def _revisions() -> Sequence[str]:
    return optuna.storages.RDBStorage("sqlite://").get_all_versions()


SCHEMA = stores.Schema("Optuna", _build, _revisions, "optuna storage upgrade --storage")
