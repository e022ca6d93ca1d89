"""What tests of executors have in common: folders."""

from pathlib import Path

import pytest

from harness.executors import OutputDirs


@pytest.fixture
def dirs(tmp_path: Path) -> OutputDirs:
    return OutputDirs(tmp_path / "scratch", tmp_path / "checkpoints")
