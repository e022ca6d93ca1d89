"""The last line of defence of the command line: whatever happens, a few words, a way on and an exit code."""

import errno
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from harness import paths, provenance
from harness.errors import HarnessError, MachineError

STOPPED = "stopped"  # what is said of a command that Ctrl-C ended, but for a study, which says what it keeps
UNEXPECTED, INTERRUPTED, CLOSED = 70, 130, 141  # exit codes: of sysexits.h, and as a shell tells of SIGINT and SIGPIPE
# Errors of the operating system that tell of the machine, not of this code.
OF_THE_MACHINE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Output(Console):
    """The console of the commands: text is shown as it is, and a reader that has gone ends the command quietly.

    Args:
        stderr: print on the error channel.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(emoji=False, markup=False, stderr=stderr)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does; where it is no terminal, lines end at their last character: tables would fill them with blanks."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as shown:
            super().print(*objects, **options)
        text = re.sub(r" +\n", "\n", shown.get())
        super().print(text, end="", soft_wrap=True, highlight=False, markup=False)

    def on_broken_pipe(self) -> None:
        """End at once. A study prints to what lasts longer (`runner.terminal`)."""
        _discard_output()
        self.quiet = True
        raise SystemExit(CLOSED)


def guarded(body: Callable[[], int], *, debug: bool) -> int:
    """Run a command and return its exit code, whatever it raises: 70 for what nobody expected.

    Args:
        body: runs the command and returns its exit code.
        debug: whether tracebacks are shown, too.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # of a terminal that knows ASCII alone, or a name that is no text
    try:
        with _second_interrupt_ends():
            return _flushed(body)
    except HarnessError as error:
        _trace(error, debug=debug)
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        say(STOPPED)
        return INTERRUPTED
    except OSError as fault:
        if fault.errno not in OF_THE_MACHINE:
            return _unexpected(fault, debug=debug)
        _trace(fault, debug=debug)
        say(f"{fault.filename or 'the machine'}: {fault.strerror}\nmend that, then run the command again; --debug shows where")
        return MachineError.exit_code
    except MemoryError as fault:
        _trace(fault, debug=debug)
        say("the memory of this machine is used up\nend other programs or ask for less, then run the command again")
        return MachineError.exit_code
    except Exception as fault:  # the last line: whatever it is, it gets an exit code and a place where it is kept
        return _unexpected(fault, debug=debug)


def say(message: str) -> None:
    """Print a message on the error channel, after the program's name."""
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False).print(f"harness: {message}")


def _flushed(body: Callable[[], int]) -> int:
    """Run a command and return its exit code, once all that it printed is out or its reader has gone."""
    try:
        try:
            return body()
        finally:  # --help ends by SystemExit
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        if _reader_is_there():
            raise
        _discard_output()
        return CLOSED


def _reader_is_there() -> bool:
    """Return whether what is printed still gets somewhere."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    return True


def _discard_output() -> None:
    """Let all that is still printed go nowhere, what waits in the buffer too."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)


@contextmanager
def _second_interrupt_ends() -> Iterator[None]:
    """Let a second Ctrl-C in this block, or once it was left by a first one, end the process at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else whoever started this process has other plans
    if not plain or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _unexpected(fault: Exception, *, debug: bool) -> int:
    """Keep what nobody expected in a file, say so in three lines and return the exit code."""
    _trace(fault, debug=debug)
    words = " ".join(f"{type(fault).__name__}: {fault}".split())
    try:
        kept = f"kept in {_keep(fault)}"
    except OSError as reason:  # not even a temporary folder can be written
        kept = f"kept nowhere ({reason.strerror}); --debug shows it"
    say(
        f"this should not happen: {provenance.redacted(words)[:300]}\n{kept}\n"
        "run the command again, all that is on record is kept; if this comes back, send that file to where the harness is from"
    )
    return UNEXPECTED


def _keep(fault: Exception) -> Path:
    """Write a traceback with command and versions into mlruns/errors, or else a temporary folder, and return the file.

    Raises:
        OSError: neither can be written.
    """
    facts = f"command: {provenance.command()}\nharness: {provenance.version('vae-harness')}\n"
    facts += f"Python: {platform.python_version()} on {platform.platform()}\n"
    text = provenance.redacted(facts + "".join(traceback.format_exception(fault)))
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    try:
        folder = paths.mlruns() / "errors"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
    except (OSError, RuntimeError):  # RuntimeError: a home of `~` where nobody's is known
        folder = Path(tempfile.mkdtemp(prefix="harness-errors-"))
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
    return folder / name


def _trace(fault: BaseException, *, debug: bool) -> None:
    """Print a traceback on the error channel if it is asked for."""
    if debug and sys.stderr is not None:
        print(provenance.redacted("".join(traceback.format_exception(fault))), end="", file=sys.stderr)
