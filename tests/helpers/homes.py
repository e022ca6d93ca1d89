"""Homes that outlive a test: what is built in one leaves nothing in the environment of the tests that follow."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def home_at(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Work in this `HARNESS_HOME` with the store that lies in it; then forget where MLflow was told that its store is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield patch
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow leaves there what it was told last
