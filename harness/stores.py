"""The two databases of a home folder: made whole or not at all, and one driver per study."""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import MachineError

SQLITE_PATIENCE_S = 60


@contextmanager
def lock(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold `path` as a lock; the kernel frees it however this process ends.

    Waits for another holder, or raises MachineError(busy) at once where `busy` is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            file.seek(0)
            raise MachineError(f"{busy} (process {file.read().strip() or 'unknown'} holds {path})") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def make_whole(path: Path, build: Callable[[str], None]) -> None:
    """Make sure that the SQLite database `path` exists, built by `build(uri)`.

    MLflow builds its schema in dozens of steps; a kill in between leaves a file that never works again, and so do several
    processes that meet at an empty folder. So: under a lock, in a file of another name, renamed when it is whole.
    """
    with lock(path.with_suffix(".lock")):
        if path.exists():
            if path.read_bytes()[:15] != b"SQLite format 3":
                raise MachineError(f"{path} is not a SQLite database\nmove it away and start again")
            return
        scratch = path.with_suffix(".building")
        for leftover in path.parent.glob(f"{scratch.name}*"):
            leftover.unlink()
        build(f"sqlite:///{scratch}")
        with sqlite3.connect(scratch) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
