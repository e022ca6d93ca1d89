"""Of what kind the parts of a study are, said before anything is made of them. Torch is not imported here."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from harness.errors import UserError, shown

# What a field takes, in words and as a test. Texts are sequences too, but never meant as one.
Kind = tuple[str, Any]
TEXT: Kind = ("a name", lambda value: isinstance(value, str))
TEXT_OR_NONE: Kind = ("a name or None", lambda value: value is None or isinstance(value, str))
NUMBER: Kind = ("a number", lambda value: _is_number(value))
NUMBER_OR_NONE: Kind = ("a number or None", lambda value: value is None or _is_number(value))
WHOLE: Kind = ("a whole number", lambda value: type(value) is int)
SEEDS: Kind = ("whole numbers, such as range(6) or (0, 1, 2)", lambda value: _is_sequence(value, int))
LOOKS: Kind = ("whole numbers, such as (6, 10)", lambda value: _is_sequence(value, int))
REFERENCES: Kind = ("references in a tuple, such as ('sharpness.py:SHARPNESS',)", lambda value: isinstance(value, list | tuple))
NAMES: Kind = ("names in a tuple, such as ('a', 'b')", lambda value: _is_sequence(value, str))


def named(kind: type) -> Kind:
    """Return the kind of mappings from names to values of a type, such as the budgets of a study."""
    return (
        f"a mapping of names to {kind.__name__}",
        lambda value: _is_named(value) and all(isinstance(v, kind) for v in value.values()),
    )


def several(kind: type) -> Kind:
    """Return the kind of tuples of values of a type."""
    return f"a tuple of {kind.__name__}", lambda value: _is_sequence(value, kind)


def one(kind: type, *, optional: bool = False) -> Kind:
    """Return the kind of values of a type, or None if `optional`."""
    return f"a {kind.__name__}{' or None' * optional}", lambda value: isinstance(value, kind) or (optional and value is None)


def mapping_of_mappings() -> Kind:
    """Return the kind of mappings from names to changed fields, as the arms of a study are."""
    return (
        "a mapping of names to changed fields, such as {'deep': {'hidden': (64, 64)}}",
        lambda value: _is_named(value) and all(_is_named(v) for v in value.values()),
    )


def check(thing: Any, kinds: Mapping[str, Kind]) -> None:
    """Raise an error for the fields of a thing that are of another kind than they should be.

    Raises:
        UserError: some are; the message lists them all, with what came.
    """
    wrong = list(_wrong(thing, kinds))
    if wrong:
        raise UserError("\n".join(wrong))


def _wrong(thing: Any, kinds: Mapping[str, Kind]) -> Iterator[str]:
    for name, (words, fits) in kinds.items():
        value = getattr(thing, name)
        if not fits(value):
            yield f"{type(thing).__name__}: {name} must be {words}, got {shown(value)}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_named(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_sequence(value: object, kind: type) -> bool:
    """Return whether this is a sequence of values of a type; a range is one of whole numbers, however long."""
    if isinstance(value, range):
        return kind is int
    whole = isinstance(value, Sequence) and isinstance(value, Collection) and not isinstance(value, str | bytes | bytearray)
    return whole and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)  # type: ignore[attr-defined]
