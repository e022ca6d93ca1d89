"""Paths of everything that a run reads or writes, all below one home folder."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Return `$HARNESS_HOME` or the project's folder, as an absolute path, so that no store depends on the working directory."""
    return Path(os.environ.get("HARNESS_HOME") or PROJECT).resolve()


def mlruns() -> Path:
    """Return the folder for everything that runs write: both databases, artifacts and locks."""
    return home() / "mlruns"


def data() -> Path:
    """Return the folder of the raw data sets: `$HARNESS_DATA`, or `data/` in the home folder."""
    return Path(os.environ.get("HARNESS_DATA") or home() / "data").resolve()


def studies() -> Path:
    """Return the folder of the study files, which hold one question each."""
    return PROJECT / "studies"
