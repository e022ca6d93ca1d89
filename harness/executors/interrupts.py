"""SIGTERM in a process that trains: the process ends at the next moment at which no file or message is half written."""

import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 1.0
IMPORTING = "<frozen importlib._bootstrap>"  # the file of the functions of Python that import a module


class Stop(BaseException):
    """Raised in a process that was asked to end."""


def loses_exceptions(frame: FrameType | None) -> bool:
    """Return whether what a signal's handler raises in this frame would be lost: dropped, or another exception in its place.

    So it is in the callback of a weak reference, where Python prints and drops it, and while a module is imported: compiled code
    may turn it to an ImportError, and the making of a class to a RuntimeError.
    """
    if frame is not None and frame.f_code.co_filename == weakref.__file__:
        return True
    while frame is not None and frame.f_code.co_filename != IMPORTING:
        frame = frame.f_back
    return frame is not None


class Interrupts:
    """The handling of SIGTERM: `Stop` is raised in blocks that may be cut short, and nowhere else.

    A signal within such a block raises `Stop` at once; one at another time raises it at the start of the next such block. So no
    file is cut while it is written, and no message while it is sent. Nothing is raised before `listen` is called.

    Attributes:
        again_s: the seconds after which an interrupt that was lost is raised again.
        stop_requested: True once the process was asked to end.
        interruptible: True within a block that may be cut short.
    """

    def __init__(self, again_s: float = AGAIN_S) -> None:
        self.again_s = again_s
        self.stop_requested = self.interruptible = False

    def listen(self) -> None:
        """Install the handler of SIGTERM, and ignore SIGINT.

        Ctrl-C sends SIGINT to the whole process group, and the driver decides what its workers do.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Record the request to stop, and raise `Stop` if the process is in a block that may be cut short."""
        self.stop_requested = True
        if self.interruptible:
            signal.setitimer(signal.ITIMER_REAL, self.again_s)  # an exception raised in a destructor is lost
            if not loses_exceptions(frame):
                raise Stop

    @contextmanager
    def cutting_short(self) -> Iterator[None]:
        """Let the block be ended by `Stop` between any two operations, and at its start if the process was asked to end before."""
        try:
            self.interruptible = True
            if self.stop_requested:
                raise Stop
            yield
        finally:
            self.interruptible = False


INTERRUPTS = Interrupts()  # one per process, as its signals are
