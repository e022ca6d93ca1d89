"""The addresses of files in an MLflow store of SQLite, which are absolute: made those of the present home if it was moved."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

from harness import paths
from harness.stores.files import SQLITE_PATIENCE_S

ARTIFACTS = "/mlruns/artifacts"  # how the folder of all files ends, in every home
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def relocate(database: Path) -> None:
    """Make the addresses of files that lay in another home's mlruns/artifacts those of the present home, and say so.

    MLflow keeps the address of every run's folder, so that a home that was moved, renamed or copied would read, and write, where it
    was. What is not in a home is left as it is: `$HARNESS_ARTIFACTS`, a bucket, a server's. So is what still lies elsewhere and not
    here, as where two homes share a database. The change is one transaction, and a second call changes nothing.
    """
    here = (paths.mlruns() / "artifacts").as_uri()
    with closing(sqlite3.connect(database, timeout=SQLITE_PATIENCE_S)) as connection:
        others = _others(connection, here)
        if not others:
            return
        connection.execute("BEGIN IMMEDIATE")
        for there in others:
            for table, column in COLUMNS:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    [here, len(there) + 1, len(there) + 1, f"{there}/"],
                )
        connection.commit()
    for there in others:
        print(f"this home was in {_folder(there).parent.parent}: its files are read and written here from now on", file=sys.stderr)


def _others(connection: sqlite3.Connection, here: str) -> list[str]:
    """Return the addresses of other homes' folders of files that a store names, and whose files are in the present home."""
    found: dict[str, list[str]] = {}
    for (location,) in connection.execute("SELECT artifact_location FROM experiments"):
        there, _, experiment = location.rpartition("/")
        found.setdefault(there, []).append(experiment)
    others = {a: e for a, e in found.items() if a.startswith("file:///") and a.endswith(ARTIFACTS) and a != here}
    return [there for there, experiments in others.items() if _are_here(there, here, experiments)]


def _are_here(there: str, here: str, experiments: list[str]) -> bool:
    """Return whether the files of experiments in another home's folder are in the present home now: moved or copied."""
    if not _folder(there).is_dir():
        return True
    kept = [e for e in experiments if _folder(f"{there}/{e}").is_dir()]
    return _folder(here).is_dir() and all(_folder(f"{here}/{e}").is_dir() for e in kept)


def _folder(address: str) -> Path:
    """Return the folder of an address."""
    return Path(unquote(urlparse(address).path))
