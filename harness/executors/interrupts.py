"""SIGTERM in a process that trains: it ends at the next moment at which nothing is left half done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_S = 1.0


class Stop(BaseException):
    """This process was asked to end."""


class Interrupts:
    """Raises `Stop` in blocks that may be cut short, at once; asked elsewhere, where the next such block begins.

    So neither a file in writing nor a message in sending is ever cut. A process that does not `listen` is never asked.
    """

    def __init__(self) -> None:
        self.asked = self.loose = False

    def listen(self) -> None:
        """Take SIGTERM as the wish to stop, and ignore SIGINT: Ctrl-C reaches a whole group, and the driver decides for it."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for wish in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(wish, self._pull)

    def _pull(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self.loose:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)  # raised in a destructor, it is lost: then raise it again
            raise Stop

    @contextmanager
    def cutting_short(self) -> Iterator[None]:
        """A block that may end in `Stop` between any two operations."""
        try:
            self.loose = True
            if self.asked:
                raise Stop
            yield
        finally:
            self.loose = False


INTERRUPTS = Interrupts()  # of this process: so are its signals
