"""Where things lie: one home folder for everything that a run reads or writes."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """`$HARNESS_HOME`, or the project's folder. Absolute, so that no store depends on the working directory."""
    return Path(os.environ.get("HARNESS_HOME") or PROJECT).resolve()


def mlruns() -> Path:
    """Everything that runs write: both databases, artifacts, locks."""
    return home() / "mlruns"


def data() -> Path:
    """Raw data sets: `$HARNESS_DATA`, or `data/` in the home folder."""
    return Path(os.environ.get("HARNESS_DATA") or home() / "data").resolve()


def studies() -> Path:
    """The study files, one question each."""
    return PROJECT / "studies"
