"""Look a name up in a table, or say what the table holds."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from harness.errors import UserError

T = TypeVar("T")


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
