"""Faults of a user's hand, of the data or of the machine: each with its exit code and no traceback."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class HarnessError(Exception):
    """A fault that a user can mend. The message names the thing, shows what came and says what would do."""

    exit_code = 1


class UserError(HarnessError, ValueError):
    """A wrong name, value or combination in a study, a spec or on the command line."""

    exit_code = 2


class DataError(HarnessError):
    """A data set that is missing or is not what it should be."""

    exit_code = 3


class MachineError(HarnessError):
    """Something that the machine lacks or holds: a device, a port, a lock, a tracking server."""

    exit_code = 4


def unknown(what: str, name: object, known: Iterable[str]) -> UserError:
    """The error for a name that is in no table: what was meant, what came, the nearest name, all names.

    >>> print(unknown("activation", "rleu", ["elu", "relu"]))
    unknown activation 'rleu'; did you mean 'relu'?
    known: elu, relu
    """
    names = list(known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {what} {name!r}{hint}\nknown: {', '.join(names)}")


def look_up(table: Mapping[str, T], name: str, what: str) -> T:
    """`table[name]`, or a `UserError` that names the nearest entry and lists them all."""
    if name not in table:
        raise unknown(what, name, table)
    return table[name]
