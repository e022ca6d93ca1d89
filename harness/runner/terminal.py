"""The terminal of a study: it outlives its reader, because a closed one must not end a study that trains, and it may be quiet."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from rich.console import Console

GONE = {errno.EPIPE, errno.EIO, errno.EBADF}  # a pipe that nobody reads, a terminal that was closed, a closed descriptor


class Lasting:
    """A text stream that drops what is written once nobody can read it any more.

    Attributes:
        stream: the stream that takes what is written.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the stream."""
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write text and return its length."""
        try:
            self.stream.write(text)
        except OSError as fault:
            self._lost(fault)
        return len(text)

    def flush(self) -> None:
        """Hand on what is in the stream's buffer."""
        try:
            self.stream.flush()
        except OSError as fault:
            self._lost(fault)

    def _lost(self, fault: OSError) -> None:
        """Lead the stream to nowhere, so that what is left in its buffer cannot fail again when this process ends.

        Raises:
            OSError: another fault than that nobody can read it.
        """
        if fault.errno not in GONE:
            raise fault
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


@contextmanager
def aloud(console: Console) -> Iterator[bool]:
    """Let a quiet console print in this block: warnings, verdicts and where to look. Yield whether it was quiet."""
    quiet, console.quiet = console.quiet, False
    try:
        yield quiet
    finally:
        console.quiet = quiet
