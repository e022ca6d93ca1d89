"""Blocks in which child processes are started: their environment, and interrupts that they never see."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables for the block and for processes that are started in it, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Block SIGINT: processes started in the block never see it, not even while they import; this process sees it afterwards."""
    with environment(PYTHONWARNINGS="ignore:resource_tracker:UserWarning"):  # about resources that ended workers leave behind
        resource_tracker.ensure_running()  # else it would start within the block, and it unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
