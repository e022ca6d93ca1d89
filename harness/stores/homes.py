"""The home folder, looked at before anything is written: whether its path can be used, and whether it can be written to."""

import errno
import os
from pathlib import Path

from harness import paths
from harness.errors import MachineError, UserError
from harness.stores import files
from harness.stores.addresses import sqlite_uri

DATABASES = ("mlflow.db", "optuna.db")


def check() -> None:
    """Raise an error unless everything that a study writes can be written into the home folder. Nothing is written.

    Raises:
        UserError: no database can have such a path.
        MachineError: the folder, or something in it that a study writes to, cannot be written to.
    """
    for name in ("HARNESS_HOME", "HARNESS_DATA"):
        if os.path.expanduser(os.environ.get(name, "")).startswith("~"):
            raise UserError(f"{name}={os.environ[name]}: no user here has that name\nwrite the path of a folder")
    folder = paths.mlruns()
    sqlite_uri(folder)
    try:
        _refuse_others(folder)
        written = [folder, *sorted(f for f in folder.iterdir() if f.is_dir())] if folder.exists() else [_nearest(folder)]
        for place in written:
            if not os.access(place, os.W_OK | os.X_OK):
                raise OSError(_reason(place), os.strerror(_reason(place)), str(place))
        for database in (folder / name for name in DATABASES):
            if database.exists() and not files.can_write(database):
                raise OSError(_reason(database), os.strerror(_reason(database)), str(database))
    except OSError as fault:
        raise MachineError(
            f"cannot write {fault.filename or folder}: {os.strerror(fault.errno or errno.EIO).lower()}\n"
            "mend that, or name another home folder: HARNESS_HOME=..."
        ) from None


def can_write() -> bool:
    """Return whether the folder of all records can be written to, or made."""
    return os.access(_nearest(paths.mlruns()), os.W_OK)


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _refuse_others(folder: Path) -> None:
    """Raise OSError if the home folder, or the folder of records in it, is something else."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "", str(place))


def _reason(place: Path) -> int:
    """Return the number of the error of a place that cannot be written to."""
    read_only = os.statvfs(place).f_flag & os.ST_RDONLY
    return errno.EROFS if read_only else errno.EACCES
