"""What a refusal is, and bounds of calls, memory and files."""

import gc
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from refusals import fingerprint

from harness.errors import HarnessError

CALLS = 3_000_000  # of functions, Python's and C's: some seconds, which nothing that is judged before work begins may take
MEMORY = 3 * 2**30  # bytes, beyond what the process has already
LONGEST = 6_000  # characters of a message: what came may be shown, but not all of it


class TooMuch(BaseException):
    """Raised after too many calls. No `except Exception` catches it."""


@dataclass(frozen=True)
class Refusal:
    """An error that was raised as it should be."""

    code: int
    text: str


def attempt(call: Callable[[], Any], *codes: int) -> Any:
    """Return what a call gives, or a `Refusal`, whose exit code must be one of `codes`. Any other exception passes."""
    try:
        with few_calls():
            return call()
    except HarnessError as error:
        refusal = Refusal(error.exit_code, str(error))
    assert refusal.code in codes, f"exit code {refusal.code}: {refusal.text}"
    assert refusal.text.strip(), "refused without a word"
    assert len(refusal.text) <= LONGEST, f"{len(refusal.text):,} characters: {refusal.text[:300]}"
    return refusal


@contextmanager
def few_calls(most: int = CALLS) -> Iterator[None]:
    """Raise an AssertionError in this block after too many calls: a bound that is the same on every machine.

    What others have the garbage collector call, such as hypothesis, is not called in it: that would be counted too.
    """
    count = 0

    def counted(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise TooMuch

    before, called_back = sys.getprofile(), gc.callbacks[:]
    gc.callbacks.clear()
    sys.setprofile(counted)
    try:
        yield
    except TooMuch:
        raise AssertionError(f"more than {most:,} calls") from None
    finally:
        sys.setprofile(before)
        gc.callbacks[:] = called_back


@contextmanager
def little_memory(more: int = MEMORY) -> Iterator[None]:
    """Let this process have no more address space in this block than it has now and so many bytes: then a MemoryError is raised."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextmanager
def a_home(*, written: bool = False, **variables: str) -> Iterator[Path]:
    """Work in an empty folder, beside an empty home and with variables of the environment; unless `written`, both stay empty."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name, pytest.MonkeyPatch.context() as patch:
        home, folder = Path(name, "home"), Path(name, "folder")
        folder.mkdir()
        for variable, value in {"HARNESS_HOME": str(home), **variables}.items():
            patch.setenv(variable, value)
        for variable in ("MLFLOW_TRACKING_URI", "HARNESS_COMMAND"):
            if variable not in variables:
                patch.delenv(variable, raising=False)
        patch.chdir(folder)
        yield folder
        left = [*fingerprint(home), *fingerprint(folder)]
        assert written or not left, f"written: {left}"
        os.chdir("/")
