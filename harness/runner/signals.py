"""SIGTERM, SIGINT and SIGHUP stop a study between two writes to its stores, never within one."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from harness.executors.interrupts import loses_exceptions

AGAIN_S = 0.05
PATIENCE_S = 10.0  # with an import; one may hold all of a program
CODES = {number: 128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}  # as a shell says it


class Stopped(BaseException):
    """A signal of CODES has arrived. `code` is the exit code that tells which."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Stops:
    """The request to stop this process, and the blocks in which it takes effect.

    An exception at any other point could leave a database with an open transaction of this process, which would then lock it out.

    Attributes:
        code: the exit code of the signal that arrived; 0 if none has.
        latest: the time of the monotonic clock at which it takes effect whatever is lost.
        may_raise: True within a block in which the request takes effect.
    """

    def __init__(self) -> None:
        self.code, self.latest = 0, 0.0
        self.may_raise = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the signals of CODES in this block as a request to stop; a second one ends the process at once.

        A signal that this process ignores stays ignored, as SIGHUP does under nohup. The block needs SIGALRM and its timer.
        """
        heeded = [s for s in CODES if signal.getsignal(s) != signal.SIG_IGN]

        def stop(number: int, frame: FrameType | None) -> None:
            for s in heeded:
                signal.signal(s, signal.SIG_DFL)
            self.code, self.latest = CODES[signal.Signals(number)], time.monotonic() + PATIENCE_S
            take_effect(signal.SIGALRM, frame)

        def take_effect(_: int, frame: FrameType | None) -> None:
            if self.may_raise and time.monotonic() < self.latest and loses_exceptions(frame):
                signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
            elif self.may_raise and self.code:
                raise Stopped(self.code)

        previous = {s: signal.signal(s, stop) for s in heeded} | {signal.SIGALRM: signal.signal(signal.SIGALRM, take_effect)}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for s, handler in previous.items():
                signal.signal(s, handler)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Raise `Stopped` in this block as soon as this process is asked to stop, or at its start if it was asked before."""
        try:
            self.may_raise = True
            if self.code:
                raise Stopped(self.code)
            yield
        finally:
            self.may_raise = False
