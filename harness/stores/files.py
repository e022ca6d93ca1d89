"""SQLite databases in the home folder, created completely or not at all under a lock of the kernel."""

import atexit
import errno
import functools
import os
import shlex
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from harness.errors import MachineError
from harness.stores.addresses import sqlite_uri
from harness.stores.locks import lock
from harness.stores.schema import REVISION_TABLE, Schema

SQLITE_PATIENCE_S = 60
# In older versions several writers could corrupt a write-ahead log (https://sqlite.org/wal.html, "the WAL-reset bug").
WAL_SOUND = (3, 51, 3)
MOST_CHECKED = (
    2**28
)  # bytes of a database that a start reads through, which takes 0.2 s per 100 MB; a larger one shows its faults when it is used
_SOUND: set[Path] = set()  # databases that this process has read through
MOUNTS = Path("/proc/mounts")
NETWORK = {"9p", "afs", "beegfs", "ceph", "cifs", "gpfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "virtiofs"}
NETWORK |= {f"fuse.{kind}" for kind in ("ceph", "glusterfs", "juicefs", "rclone", "s3fs", "sshfs")}


def make_whole(
    path: Path, schema: Schema, *, version: tuple[int, ...] = sqlite3.sqlite_version_info, mounts: Path = MOUNTS
) -> Path:
    """Make sure that the SQLite database `path` exists and is of this schema, and return the file to open.

    That is the file itself, or, where nothing can be written, a copy that lasts as long as this process: what is on record can be
    read in a folder of another user, or on a read-only file system. Whoever means to keep something calls `homes.check` before.

    MLflow builds its schema in dozens of steps; a kill in between leaves a file that never works again, and so do several
    processes that start in an empty folder at once. Therefore the database is built under a lock, in a file of another name that
    is renamed when it is complete.

    Args:
        path: of the database file.
        schema: of its tables.
        version: of SQLite, which decides on the journal.
        mounts: where the system lists its file systems.

    Raises:
        MachineError: the file cannot be written or read, is damaged, or holds something else.
    """
    caution(path.parent, mounts)
    try:
        if path.is_file() and path.stat().st_size and not can_write(path):
            copy = _copy_to_read(path, path.stat().st_mtime_ns)
            _check(copy, schema, wal=False)
            return copy
        with lock(path.with_suffix(".lock")):
            if not path.exists() or path.stat().st_size == 0:
                _build(path, schema)
            _check(path, schema, wal=version >= WAL_SOUND and network_file_system(path, mounts) is None)
    except OSError as fault:
        raise MachineError(f"cannot write {fault.filename or path}: {os.strerror(fault.errno or errno.EIO)}") from None
    return path


def can_write(path: Path) -> bool:
    """Return whether a database file can be written to, and the journal beside it."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


@functools.cache
def _copy_to_read(path: Path, version: int) -> Path:
    """Return a copy of a database file that is deleted at the end of this process, and say so; `version` tells states apart."""
    folder = Path(tempfile.mkdtemp(prefix="harness-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    print(f"{path} cannot be written to: it is read from a copy", file=sys.stderr)
    return snapshot(path, folder)


def _build(path: Path, schema: Schema) -> None:
    """Build a database in a scratch file and rename it, with file and folder flushed to disk."""
    scratch = path.with_suffix(".building")
    for leftover in path.parent.glob(f"{scratch.name}*"):
        leftover.unlink()
    schema.build(sqlite_uri(scratch))
    with scratch.open("rb+") as file:
        os.fsync(file.fileno())
    scratch.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check(path: Path, schema: Schema, *, wal: bool) -> None:
    """Raise MachineError unless a database file is sound and of this schema, and choose its journal."""
    try:
        with closing(sqlite3.connect(path, timeout=SQLITE_PATIENCE_S)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            row = connection.execute(f"SELECT version_num FROM {REVISION_TABLE}").fetchone() if REVISION_TABLE in tables else None
            schema.check(path, tables, row[0] if row else None)
            _look_through(connection, path)
            _choose_journal(connection, wal=wal)
    except sqlite3.OperationalError as fault:  # locked, read-only, unreadable: the file itself may be fine
        raise MachineError(f"cannot use {path}: {fault}") from None
    except sqlite3.DatabaseError as fault:
        file = shlex.quote(str(path))
        broken = "is not a SQLite database" if "not a database" in str(fault) else f"is damaged: {fault}"
        raise MachineError(
            f"{path} {broken}\nput a backup in its place, or move it away: mv {file} {file}.damaged\n"
            "the next start makes what it held again, as far as the other database and the runs' files tell of it"
        ) from None


def _look_through(connection: sqlite3.Connection, path: Path) -> None:
    """Raise DatabaseError if a database is damaged anywhere in its pages, unless this process has looked at it before."""
    if path in _SOUND or path.stat().st_size > MOST_CHECKED:
        return
    (first,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if first != "ok":
        raise sqlite3.DatabaseError(" ".join(first.split()))
    _SOUND.add(path)


def _choose_journal(connection: sqlite3.Connection, *, wal: bool) -> None:
    """Set the journal of a database: a write-ahead log where that is safe, else the rollback journal.

    The setting is stored in the file. A file that another process has open keeps its journal.
    """
    wanted = "wal" if wal else "delete"
    (now,) = connection.execute("PRAGMA journal_mode").fetchone()
    if now != wanted:
        connection.execute("PRAGMA busy_timeout = 0")  # do not wait for other processes: their journal will do
        try:
            connection.execute(f"PRAGMA journal_mode = {wanted}")
        except sqlite3.OperationalError:
            return


def network_file_system(path: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the kind of network file system that holds a path; None if it is a local one, or if there is no `mounts` to read."""
    if not mounts.exists():
        return None
    resolved, kind, depth = path.resolve(), None, -1
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, system, *_ = line.split()
        folder = Path(point.replace("\\040", " "))
        if resolved.is_relative_to(folder) and len(folder.parts) >= depth:  # of mounts on one point the last one is visible
            kind, depth = system, len(folder.parts)
    return kind if kind in NETWORK else None


@functools.cache
def caution(folder: Path, mounts: Path = MOUNTS) -> None:
    """Warn on stderr, once per folder, that SQLite on a network file system is safe for one host at a time only."""
    kind = network_file_system(folder, mounts)
    if kind is not None:
        print(
            f"{folder} lies on {kind}: its SQLite databases are safe for one host at a time; for several, see docs/scaling.md",
            file=sys.stderr,
        )


def snapshot(path: Path, folder: Path) -> Path:
    """Return a copy in `folder` of a SQLite database as it is now. The database is not written to, and no lock of ours is taken.

    Raises:
        MachineError: it cannot be read, or is no database.
    """
    copy = folder / path.name
    try:
        with (
            closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=SQLITE_PATIENCE_S)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            _look_through(target, copy)
    except sqlite3.Error as fault:
        raise MachineError(f"cannot read {path}: {fault}") from None
    return copy
