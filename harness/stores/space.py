"""A full disk: how to recognise one whoever met it, and what to say of it."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import paths
from harness.errors import MachineError

MEBI = 2**20
FULL = {errno.ENOSPC, errno.EDQUOT}
# What those say who keep the number of the error to themselves: SQLite, the C library, and torch where it writes a file.
WORDS = ("database or disk is full", "No space left on device", "Disk quota exceeded", "iostream error", "failed writing file")


class DiskFullError(MachineError):
    """Raised when a write has met a full disk or a quota. What was on record before it stays there."""


def is_full(fault: BaseException) -> bool:
    """Return whether a full disk or a quota is why this exception was raised, or one of those that it came of."""
    return _cause(fault) is not None


def _cause(fault: BaseException | None) -> BaseException | None:
    """Return what says that the disk is full, of an exception and those that it came of, the first one first; None if none does."""
    chain: list[BaseException] = []
    while fault is not None and fault not in chain:
        chain.append(fault)
        fault = fault.__cause__ or fault.__context__
    for link in reversed(chain):
        if isinstance(link, DiskFullError) or (isinstance(link, OSError) and link.errno in FULL):
            return link
        if any(words in str(link) for words in WORDS):
            return link
    return None


def full(why: str) -> DiskFullError:
    """Return the error for a write that met a full disk, with how much is free where this process writes."""
    return DiskFullError(
        f"the disk is full: {why.strip().partition(chr(10))[0][:300]}\n"
        f"free: {', '.join(f'{free_bytes(folder) / MEBI:,.1f} MiB in {folder}' for folder in (paths.mlruns(), temporary()))}\n"
        "nothing on record is lost, no trial failed by this: once there is room, the same command goes on where it left off"
    )


@contextmanager
def full_in_words() -> Iterator[None]:
    """Raise DiskFullError for what a full disk raises in this block."""
    try:
        yield
    except Exception as fault:  # of whatever library: each has its own way to say it
        cause = _cause(fault)
        if cause is None or isinstance(fault, DiskFullError):
            raise
        raise full(str(cause)) from fault


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the file system that holds a folder, or will once the folder is made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def temporary() -> Path:
    """Return the folder for temporary files.

    Raises:
        MachineError: no folder can be written to.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as fault:
        raise MachineError(f"no folder for temporary files can be written to: {fault}\nset TMPDIR to one that can") from None
