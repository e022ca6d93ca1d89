"""Run a command: from the words of a terminal to an exit code."""

import argparse
import atexit
import gc
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness import defence
from harness.cli.command import Command
from harness.cli.parsing import parser
from harness.errors import UserError

ALLOCATIONS = 200_000  # between two runs of the garbage collector, 700 by default: a fifth of the time that imports take


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code.

    It is 2 for an error of the user, 3 for the data, 4 for the machine, 70 for what nobody expected, 130, 143 or 129 if SIGINT,
    SIGTERM or SIGHUP stopped the command, and 141 if whoever read its output has gone.
    """
    if not re.fullmatch("[1-9][0-9]{0,5}", os.environ.get("COLUMNS", "80")):
        del os.environ["COLUMNS"]  # a width of 0 prints nothing, errors included, and one that is no number ends in an exception
    atexit.register(gc.freeze)  # else the interpreter's last collections take 0.7 s to free what its end frees anyway
    given = sys.argv[1:] if arguments is None else list(arguments)
    with _fewer_collections():
        return defence.guarded(lambda: _run(given), debug="--debug" in given)


@contextmanager
def _fewer_collections() -> Iterator[None]:
    """Let the garbage collector run seldom in the block: what a command imports stays for as long as it runs."""
    before = gc.get_threshold()
    gc.set_threshold(ALLOCATIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _run(given: Sequence[str]) -> int:
    """Run the command that was chosen and return the exit code."""
    root = parser()
    if not [word for word in given if word != "--debug"]:
        raise UserError(f"which COMMAND?\n{root.format_help()}")
    options: argparse.Namespace = root.parse_args(given)
    command: Command = options.chosen
    if command.at_home:
        from harness.stores import homes  # with SQLAlchemy, which the others do without

        homes.check_path()
    # What people read must not stand in a document.
    return command.run(options, defence.Output(stderr=getattr(options, "json", False)))
