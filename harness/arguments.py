"""What arguments of named things may be, as a catalog's entries say it. Torch is not imported here."""

import sys
from dataclasses import dataclass
from typing import Any

from harness.errors import shown, unknown


@dataclass(frozen=True)
class Argument:
    """An argument of a named thing that a study may set: one of `choices`, or else of the kind that its default is of.

    Attributes:
        default: True or False; a whole number; a tuple of one or more of them; a real number, for a finite one above 0; or None,
            for a height and width of images, which are left as they are unless it is set.
        choices: The only values that it takes; any of the kind if there are none.
        least: The smallest whole number that it takes.
        later: True if it was added when ids of its thing were in use: it is part of an id only where it is not the default.
    """

    default: Any
    choices: tuple[Any, ...] = ()
    least: int = 1
    later: bool = False

    def fault(self, name: str, value: object) -> str:
        """Return what is wrong with a value, or an empty text."""
        if self.choices:
            return "" if self._is_choice(value) else str(unknown(name, value, map(str, self.choices)))
        match self.default:
            case bool():
                right, kind = isinstance(value, bool), "True or False"
            case int():
                right, kind = self._is_whole(value), f"a whole number of at least {self.least}"
            case tuple():
                right = isinstance(value, tuple | list) and len(value) > 0 and all(map(self._is_whole, value))
                kind = f"a tuple of one or more whole numbers of at least {self.least}, such as {self.default}"
            case None:
                pair = isinstance(value, tuple | list) and len(value) == 2 and all(map(self._is_whole, value))
                right, kind = pair or self._is_whole(value), "a number of pixels, or (height, width)"
            case _:
                right = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max
                kind = "a finite number above 0"
        return "" if right else f"{name} must be {kind}, got {shown(value)}"

    def one_form(self, value: Any) -> Any:
        """Return a value as ids have it: 1 and 1.0 are the same real number, but their JSON texts differ."""
        if self.choices and self._is_choice(value):
            return self.choices[self.choices.index(value)]
        wanted = isinstance(self.default, float) and isinstance(value, int | float) and not self.fault("", value)
        return float(value) if wanted else value

    def _is_choice(self, value: object) -> bool:
        """Return whether this is one of the choices: a plain value, for others may have a mind of their own about being equal."""
        return isinstance(value, str | int | float) and value in self.choices

    def _is_whole(self, value: object) -> bool:
        """Return whether this is a whole number that the argument takes."""
        return isinstance(value, int) and not isinstance(value, bool) and self.least <= value < 2**31
