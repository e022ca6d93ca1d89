"""Child processes: the blocks in which they are started, and their end if that of their parent comes first."""

import multiprocessing as mp
import os
import signal
import threading
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
    """Block SIGINT and SIGHUP: processes started in the block never see them, not even while they import; this one does afterwards.

    A terminal sends both to all processes of a command, of which the driver alone decides what becomes of its workers.
    """
    with environment(PYTHONWARNINGS="ignore:resource_tracker:UserWarning"):  # about resources that ended workers leave behind
        resource_tracker.ensure_running()  # else it would start within the block, and it unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process at once when the process that started it has ended.

    A new driver may train the same trial, whose files this process must not write then.
    """
    parent = mp.parent_process()
    assert parent is not None

    def wait() -> None:
        """Wait for the parent's end."""
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
