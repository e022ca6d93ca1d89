"""What a command of the command line is: its words, its options and what it does."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.defence import Output


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command.

    Attributes:
        name: what is typed.
        help: what it does, in a line.
        more: what else its help says, in paragraphs.
        examples: command lines that work, without the program's name.
        add: adds its options to a parser.
        run: runs it with the options and the console, and returns the exit code.
        at_home: whether it uses the home folder, whose path is then checked before.
    """

    name: str
    help: str
    more: str = ""
    examples: Sequence[str]
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Output], int]
    at_home: bool = True


def emit(document: Any) -> None:
    """Print a JSON document: what scripts read. Numbers that JSON has no word for (NaN, infinities) become null."""
    print(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    """Return a value with null for every number that is not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
