"""The space of a search: an axis per field of a trial, some of them searched only beside certain values of other fields."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from harness import catalog
from harness.errors import UserError, listed, shown
from harness.spec.checks import MOST_LAYERS


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
            return f"takes whole numbers, got {shown(self.low)} and {shown(self.high)}"
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
        plain = isinstance(self.choices, tuple) and all(map(_is_plain, self.choices))
        if not plain or len(self.choices) < 2 or len(set(map(_stored, self.choices))) < len(self.choices):
            return f"takes a tuple of two or more different choices, got {shown(self.choices)}"
        return ""

    def value(self, name: str, suggest: Suggest) -> Any:
        """Return the field's value. A sampler stores plain values only, so that a tuple is chosen by its text."""
        by_text = {_stored(c): c for c in self.choices}
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
            return (
                f"takes two pairs of whole numbers, such as (1, 3) and (32, 512), got {shown(self.layers)} and {shown(self.units)}"
            )
        if not all(type(n) is int and n >= 1 for n in self.layers) or self.layers[0] > self.layers[1]:
            return f"takes at least one layer, and no fewer at most than at least; got {shown(self.layers)}"
        if self.layers[1] > MOST_LAYERS:
            return f"takes at most {MOST_LAYERS:,} layers, got {shown(self.layers)}"
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


def _is_plain(value: object) -> bool:
    """Return whether this is a word, a finite number, True, False, None or a tuple of these."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    most = sys.float_info.max
    return value is None or isinstance(value, str) or (isinstance(value, int | float) and -most <= value <= most)


def _stored(choice: Any) -> str | int | float | None:
    """Return what a sampler stores of a choice: plain values only, so that of a tuple its text."""
    return str(choice) if isinstance(choice, tuple) else choice


Space = Mapping[str, Real | Whole | OneOf | Widths]


def _bounds(low: float, high: float, log: bool) -> str:
    """Return what is wrong with two bounds, or an empty text."""
    most = sys.float_info.max
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) and -most <= x <= most for x in (low, high))
    if not numbers or not low < high:
        return f"must go from a finite number to a larger one, got {shown(low)} to {shown(high)}"
    if not isinstance(log, bool):
        return f"takes log=True or log=False, got {shown(log)}"
    return f"cannot be logarithmic from {shown(low)}, which is not above 0" if log and low <= 0 else ""


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
        if not isinstance(axis, Real | Whole | OneOf | Widths):
            errors.append(f"space {shown(name)}: must be Real, Whole, OneOf or Widths, got {shown(axis)}")
            continue
        if axis.faults():
            errors.append(f"space {shown(name)}: {axis.faults()}")
        conditions = axis.when if isinstance(axis.when, Mapping) else {}
        if not isinstance(axis.when, Mapping) or not all(map(_is_plain, conditions.values())):
            errors.append(
                f"space {shown(name)}: `when` takes a mapping of fields to one value or a tuple of them, got {shown(axis.when)}"
            )
        for other in conditions:
            if other not in base:
                errors.append(f"space {shown(name)}: `when` names {shown(other)}, which is no field of a trial")
            elif other in list(space)[i:]:
                errors.append(f"space {shown(name)}: `when` names {shown(other)}, which must stand before it in the space")
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


def pinned(name: str, axis: Real | Whole | OneOf | Widths) -> Real | Whole | OneOf | Widths:
    """Return an axis with the names that it chooses from, and those beside which it is searched, as a spec keeps them."""

    def kept(field: str, values: Any) -> Any:
        if isinstance(values, tuple):
            return tuple(kept(field, value) for value in values)
        return catalog.pinned_in({field: values})[field]

    if isinstance(axis.when, Mapping):
        axis = replace(axis, when={field: kept(field, values) for field, values in axis.when.items()})
    return replace(axis, choices=kept(name, axis.choices)) if isinstance(axis, OneOf) and isinstance(axis.choices, tuple) else axis
