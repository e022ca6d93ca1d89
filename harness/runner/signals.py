"""SIGTERM and SIGINT stop a study between two writes to its stores, never within one."""

import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader
from types import FrameType

AGAIN_S = 0.05
MAKING_MODULES = {ExtensionFileLoader.create_module.__code__, ExtensionFileLoader.exec_module.__code__}
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
CODES = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED}


class Stopped(BaseException):
    """SIGTERM or SIGINT has arrived. `code` is the exit code that tells which."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _loses_exceptions(frame: FrameType | None) -> bool:
    """Return whether what is raised here would be lost: printed and dropped, or another exception in its place.

    So it is in the callback of a weak reference, and while a module of compiled code is made, which may turn it to an ImportError.
    """
    if frame is not None and frame.f_code.co_filename == weakref.__file__:
        return True
    while frame is not None and frame.f_code not in MAKING_MODULES:
        frame = frame.f_back
    return frame is not None


class Stops:
    """The request to stop this process, and the blocks in which it takes effect.

    An exception at any other point could leave a database with an open transaction of this process, which would then lock it out.

    Attributes:
        code: the exit code of the signal that arrived; 0 if none has.
        may_raise: True within a block in which the request takes effect.
    """

    def __init__(self) -> None:
        self.code = 0
        self.may_raise = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGTERM and SIGINT in this block as a request to stop; a second one ends the process at once.

        The block needs SIGALRM and its timer.
        """

        def stop(number: int, frame: FrameType | None) -> None:
            for s in CODES:
                signal.signal(s, signal.SIG_DFL)
            self.code = CODES[signal.Signals(number)]
            take_effect(signal.SIGALRM, frame)

        def take_effect(_: int, frame: FrameType | None) -> None:
            if self.may_raise and _loses_exceptions(frame):
                signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
            elif self.may_raise:
                raise Stopped(self.code)

        previous = {s: signal.signal(s, stop) for s in CODES} | {signal.SIGALRM: signal.signal(signal.SIGALRM, take_effect)}
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
