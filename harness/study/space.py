"""The space of a search: an axis per field of a trial, some of them searched only beside certain values of other fields."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.errors import UserError, listed


class Parameter(NamedTuple):
    """One number or choice that a sampler suggests.

    Attributes:
        name: of the parameter.
        low, high: the bounds, both included.
        log: True to suggest evenly on a logarithmic scale.
        whole: True for whole numbers.
        choices: the values to choose from, instead of bounds.
    """

    name: str
    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()


Suggest = Callable[[Parameter], Any]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The part that all axes share.

    Attributes:
        when: values of other fields, one or a tuple for each, beside which this field is searched; else it keeps the base's value.
    """

    when: Mapping[str, Any] = field(default_factory=dict)

    def active(self, fields: Mapping[str, Any]) -> bool:
        """Return whether this axis is searched beside these fields."""
        return all(fields[name] in (value if isinstance(value, tuple) else (value,)) for name, value in self.when.items())


@dataclass(frozen=True)
class Real(Axis):
    """A real number from `low` to `high`, evenly on a logarithmic scale if `log`."""

    low: float
    high: float
    log: bool = False

    def faults(self) -> str:
        """Return what is wrong with the bounds, or an empty text."""
        return _bounds(self.low, self.high, self.log)

    def value(self, name: str, suggest: Suggest) -> Any:
        """Return the field's value, as suggested."""
        return suggest(Parameter(name, self.low, self.high, self.log))


@dataclass(frozen=True)
class Whole(Axis):
    """A whole number from `low` to `high`, evenly on a logarithmic scale if `log`."""

    low: int
    high: int
    log: bool = False

    def faults(self) -> str:
        """Return what is wrong with the bounds, or an empty text."""
        if type(self.low) is not int or type(self.high) is not int:
            return f"takes whole numbers, got {self.low!r} and {self.high!r}"
        return _bounds(self.low, self.high, self.log)

    def value(self, name: str, suggest: Suggest) -> Any:
        """Return the field's value, as suggested."""
        return suggest(Parameter(name, self.low, self.high, self.log, whole=True))


@dataclass(frozen=True)
class OneOf(Axis):
    """One of these values."""

    choices: tuple[Any, ...]

    def faults(self) -> str:
        """Return what is wrong with the choices, or an empty text."""
        if not isinstance(self.choices, tuple) or len(self.choices) < 2 or len(set(self.choices)) < len(self.choices):
            return f"takes a tuple of two or more different choices, got {self.choices!r}"
        return ""

    def value(self, name: str, suggest: Suggest) -> Any:
        """Return the field's value. A sampler stores plain values only, so that a tuple is chosen by its text."""
        by_text = {c if isinstance(c, str | int | float | bool) or c is None else str(c): c for c in self.choices}
        return by_text[suggest(Parameter(name, choices=tuple(by_text)))]


@dataclass(frozen=True)
class Widths(Axis):
    """Hidden layers, each with a width of its own: `layers[0]` to `layers[1]` layers of `units[0]` to `units[1]` units."""

    layers: tuple[int, int]
    units: tuple[int, int]

    def faults(self) -> str:
        """Return what is wrong with the bounds, or an empty text."""
        pairs = all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in (self.layers, self.units))
        if not pairs:
            return f"takes two pairs of whole numbers, such as (1, 3) and (32, 512), got {self.layers!r} and {self.units!r}"
        if not all(type(n) is int and n >= 1 for n in self.layers) or self.layers[0] > self.layers[1]:
            return f"takes at least one layer, and no fewer at most than at least; got {self.layers!r}"
        return Whole(*self.units, log=True).faults()

    @property
    def conditional(self) -> bool:
        """True if the number of parameters depends on the value of one of them."""
        return self.layers[0] < self.layers[1]

    def value(self, name: str, suggest: Suggest) -> Any:
        """Return the field's value: a tuple of widths."""
        depth = self.layers[0]
        if self.conditional:
            depth = suggest(Parameter(f"{name}/layers", *self.layers, whole=True))
        return tuple(suggest(Parameter(f"{name}/{i}", *self.units, log=True, whole=True)) for i in range(1, depth + 1))


Space = Mapping[str, Real | Whole | OneOf | Widths]


def _bounds(low: float, high: float, log: bool) -> str:
    """Return what is wrong with two bounds, or an empty text."""
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in (low, high))
    if not numbers or not low < high:
        return f"must go from a finite number to a larger one, got {low!r} to {high!r}"
    return f"cannot be logarithmic from {low!r}, which is not above 0" if log and low <= 0 else ""


def check(space: Space, base: Mapping[str, Any]) -> None:
    """Raise an error if a space is wrong; the message lists all errors.

    Args:
        space: the space.
        base: the fields of the base.

    Raises:
        UserError: bounds, choices or conditions that make no sense.
    """
    errors: list[str] = []
    for i, (name, axis) in enumerate(space.items()):
        if axis.faults():
            errors.append(f"space {name!r}: {axis.faults()}")
        for other in axis.when:
            if other not in base:
                errors.append(f"space {name!r}: `when` names {other!r}, which is no field of a trial")
            elif other in list(space)[i:]:
                errors.append(f"space {name!r}: `when` names {other!r}, which must stand before it in the space")
    if errors:
        raise UserError(listed(errors))


def fields(space: Space, base: Mapping[str, Any], suggest: Suggest) -> dict[str, Any]:
    """Return the searched fields of one point, suggested one after another."""
    chosen: dict[str, Any] = {}
    for name, axis in space.items():
        if axis.active({**base, **chosen}):
            chosen[name] = axis.value(name, suggest)
    return chosen


def conditional(space: Space) -> bool:
    """Return whether some parameters exist only beside certain values of others."""
    return any(axis.when or (isinstance(axis, Widths) and axis.conditional) for axis in space.values())


def corners(space: Space, base: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return points that together meet every bound and every choice, so that each can be tried before anything runs."""
    most_choices = max((len(a.choices) for a in space.values() if isinstance(a, OneOf)), default=1)
    points = []
    for i in range(max(2, most_choices)):

        def suggest(p: Parameter, i: int = i) -> Any:
            return p.choices[i % len(p.choices)] if p.choices else (p.low, p.high)[i % 2]

        points.append(fields(space, base, suggest))
    return points
