"""SIGTERM and SIGINT end a study in good order: between two steps of its books, never within one."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
CODES = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED}


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived. `code` is the exit code that tells which."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Stops:
    """Whether this process was asked to stop, and where it may.

    An exception from anywhere would leave a database with a transaction of ours open, that then locks ourselves out.
    """

    def __init__(self) -> None:
        self.code = 0
        self.loose = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask this process to stop; a second one ends it at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            for s in CODES:
                signal.signal(s, signal.SIG_DFL)
            self.code = CODES[signal.Signals(number)]
            if self.loose:
                raise Stopped(self.code)

        before = {s: signal.signal(s, stop) for s in CODES}
        try:
            yield
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """A block that raises `Stopped` as soon as this process is asked to stop, or was before."""
        try:
            self.loose = True
            if self.code:
                raise Stopped(self.code)
            yield
        finally:
            self.loose = False
