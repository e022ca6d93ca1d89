"""What arguments of named things may be, as a catalog's entries say it. Torch is not imported here."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import unknown


def _is_whole(value: object) -> bool:
    """Return whether a value is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_positive(value: object) -> bool:
    """Return whether a value is a finite number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _is_size(value: object) -> bool:
    """Return whether a value is a whole number of at least 1, or two of them."""
    return _is_whole(value) or (isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_whole, value)))


# The kinds of arguments: what a value must be, in words, and whether one is.
ARGUMENT_KINDS: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "number": ("a finite number above 0", _is_positive),
    "whole": ("a whole number of at least 1", _is_whole),
    "size": ("a number of pixels, or (height, width)", _is_size),
}


@dataclass(frozen=True)
class Argument:
    """An argument of a named thing that a study may set: one of `choices`, or else a value of its kind.

    Attributes:
        default: the value that it has unless it is set; None if it is left out then.
        choices: the values that it takes, if it takes no others.
        kind: one of `ARGUMENT_KINDS`.
    """

    default: Any
    choices: tuple[Any, ...] = ()
    kind: str = "number"

    def fault(self, name: str, value: object) -> str:
        """Return what is wrong with a value, or an empty text."""
        if self.choices:
            return "" if value in self.choices else str(unknown(name, value, map(str, self.choices)))
        words, holds = ARGUMENT_KINDS[self.kind]
        return "" if holds(value) else f"{name} must be {words}, got {value!r}"

    def in_one_form(self, value: Any) -> Any:
        """Return a value as a spec keeps it: numbers of the kind `number` as floats, for 1 and 1.0 must give equal ids."""
        return float(value) if self.kind == "number" and type(value) is int and not self.choices else value
