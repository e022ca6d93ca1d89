"""Locks between processes of one host, which the kernel frees however their holder ends."""

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
    """Hold `path` as a lock; the kernel frees it however this process ends.

    Waits for another holder, at most `patience_s`, or raises MachineError(busy) at once where `busy` is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + (0 if busy else patience_s)
    with path.open("a+") as file:
        while not _taken(file.fileno(), wait=deadline == float("inf")):
            if time.monotonic() >= deadline:
                file.seek(0)
                waited = busy or f"waited {patience_s:.0f} s for another driver's turn to end"
                raise MachineError(f"{waited} (process {file.read().strip() or 'unknown'} holds {path})")
            time.sleep(POLL_S)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _taken(file: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
