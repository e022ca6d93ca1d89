"""Locks between processes of one host, which the kernel frees however the holder ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import MachineError

POLL_S = 0.02


@contextmanager
def lock(path: Path, busy: str | None = None, patience_s: float = float("inf")) -> Iterator[None]:
    """Hold a lock on the file `path`, which the kernel frees however this process ends.

    Args:
        path: the lock file; it is created with its folder, and holds the id of the process that has or had the lock.
        busy: a message to fail with at once if another process has the lock; None to wait for it.
        patience_s: the most seconds to wait.

    Raises:
        MachineError: another process has the lock, and `busy` is given or the wait was too long.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + (0 if busy else patience_s)
    with path.open("a+") as file:
        while not _acquire(file.fileno(), wait=deadline == float("inf")):
            if time.monotonic() >= deadline:
                file.seek(0)
                reason = busy or f"waited {patience_s:.0f} s for another driver's turn to end"
                raise MachineError(f"{reason} (process {file.read().strip() or 'unknown'} holds {path})")
            time.sleep(POLL_S)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _acquire(file: int, *, wait: bool) -> bool:
    """Take the lock of an open file, given by its descriptor, and return whether that worked. `wait` until it does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
