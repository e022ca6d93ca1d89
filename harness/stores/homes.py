"""The home folder, looked at before anything is written: whether its path can be used, and whether it can be written to."""

import errno
import os

from harness import paths
from harness.errors import MachineError, UserError
from harness.stores.addresses import sqlite_uri

DATABASES = ("mlflow.db", "optuna.db")
ANOTHER = "name another folder: HARNESS_HOME=... for the home, HARNESS_DATA=... for the data"


def check_path() -> None:
    """Raise UserError unless the paths of home and data folder can be used. Nothing is written, and none of them need exist."""
    for name in ("HARNESS_HOME", "HARNESS_DATA"):
        if os.path.expanduser(os.environ.get(name, "")).startswith("~"):
            raise UserError(f"{name}={os.environ[name]}: no user here has that name\nwrite the path of a folder")
    for folder in (paths.mlruns(), paths.data()):
        sqlite_uri(folder)
        for place in (folder, *folder.parents):
            try:
                wrong = place.exists() and not place.is_dir()
            except OSError as fault:  # its name is too long, or who asks may not look there
                raise UserError(f"cannot use {place}: {os.strerror(fault.errno or errno.EIO).lower()}\n{ANOTHER}") from None
            if wrong:
                raise UserError(f"cannot use {folder}: {place} is a file, not a folder\n{ANOTHER}")


def check() -> None:
    """Raise MachineError unless everything that a study writes can be written into the home folder. Nothing is written."""
    fault = unwritable()
    if fault:
        raise MachineError(f"{fault}\nmend that, or name another home folder: HARNESS_HOME=...")


def unwritable() -> str:
    """Return what a study writes to and cannot, and why; empty if it can write."""
    folder = paths.mlruns()
    if not folder.exists():
        nearest = next(place for place in folder.parents if place.exists())
        places = [nearest]
    else:
        kept = [folder / name for name in DATABASES]
        places = [folder, *sorted(f for f in folder.iterdir() if f.is_dir()), *(f for f in kept if f.exists())]
    for place in places:
        if not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0)):
            read_only = os.statvfs(place).f_flag & os.ST_RDONLY
            return f"cannot write {place}: {os.strerror(errno.EROFS if read_only else errno.EACCES).lower()}"
    return ""
