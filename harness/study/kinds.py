"""Of what kind the parts of a study are, said before anything is made of them. Torch is not imported here."""

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from harness.errors import UserError, shown

# What a field takes, in words and as a test. Texts are sequences too, but never meant as one.
Kind = tuple[str, Any]
TEXT: Kind = ("a name", lambda value: isinstance(value, str))
TEXT_OR_NONE: Kind = ("a name or None", lambda value: value is None or isinstance(value, str))
NUMBER: Kind = ("a finite number", lambda value: _is_number(value))
NUMBER_OR_NONE: Kind = ("a finite number or None", lambda value: value is None or _is_number(value))
WHOLE: Kind = ("a whole number of at most 18 digits", lambda value: type(value) is int and abs(value) < 10**18)
LOOKS: Kind = ("whole numbers, such as (6, 10)", lambda value: _is_sequence(value, int))


def one(kind: type, *, optional: bool = False) -> Kind:
    """Return the kind of values of a type, or None if `optional`."""
    return f"a {kind.__name__}{' or None' * optional}", lambda value: isinstance(value, kind) or (optional and value is None)


def check(thing: Any, kinds: Mapping[str, Kind]) -> None:
    """Raise an error for the fields of a thing that are of another kind than they should be.

    Raises:
        UserError: some are; the message lists them all, with what came.
    """
    if faults := wrong(thing, kinds):
        raise UserError("\n".join(faults))


def wrong(thing: Any, kinds: Mapping[str, Kind]) -> list[str]:
    """Return what is wrong with the fields of a thing that are of another kind than they should be."""
    values = ((name, words, fits, getattr(thing, name)) for name, (words, fits) in kinds.items())
    return [
        f"{type(thing).__name__}: {name} must be {words}, got {shown(value)}"
        for name, words, fits, value in values
        if not fits(value)
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_sequence(value: object, kind: type) -> bool:
    """Return whether this is a sequence of values of a type; a range is one of whole numbers, however long."""
    if isinstance(value, range):
        return kind is int
    whole = isinstance(value, Sequence) and isinstance(value, Collection) and not isinstance(value, str | bytes | bytearray)
    return whole and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)  # type: ignore[attr-defined]
