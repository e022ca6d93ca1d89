"""Processes that hold something, and what others are told meanwhile."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from harness.errors import HarnessError, MachineError


def message(make: Callable[[], object], kind: type[HarnessError] = MachineError) -> str:
    """What an error says, in four lines at most."""
    with pytest.raises(kind) as caught:
        make()
    assert len(str(caught.value).splitlines()) <= 4
    return str(caught.value)


def child(code: str) -> subprocess.Popen:
    """A process that does something and then prints a line."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "in"
    return process


def end(process: subprocess.Popen, how: int) -> None:
    """End a process with a signal."""
    process.send_signal(how)
    process.wait(60)
    assert process.stdout is not None
    process.stdout.close()
