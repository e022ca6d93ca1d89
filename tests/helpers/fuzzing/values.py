"""Values that a study may hold, right or wrong."""

import decimal
import fractions
import math
from enum import Enum
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


class Awkward:
    """An object that can neither be shown nor compared."""

    def __repr__(self) -> str:
        raise RuntimeError("no words for it")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    def __hash__(self) -> int:
        return 0


NUMBERS = (0, -0.0, 1, -1, 2**31 - 1, 2**31, 2**63, 10**400, 1e308, 5e-324, math.nan, math.inf, -math.inf)
WORDS = (
    "",
    " ",
    "None",
    "nan",
    "[/red]",
    "{x}",
    "%s",
    "a\nb",
    "\x00",
    "\u202e",
    "\ud800",
    "🙂",
    "x" * 7_000,
    "../x",
    "a" * 300 + ".py:F",
)
OBJECTS: tuple[Any, ...] = (
    np.float32(0.5), np.float64(2), np.int64(3), np.bool_(True), np.zeros(3), np.zeros((2, 2)), decimal.Decimal("NaN"),
    fractions.Fraction(1, 3), Path("x"), object, len, (lambda: None), 1j, b"bytes", bytearray(b"x"), range(3),
    range(10**9), {1, 2}, frozenset(), slice(1), NotImplemented, ...,
)  # fmt: skip


class Unwritable(Enum):
    """Values that cannot be written, by a name that can: Hypothesis shows what it tries."""

    HUGE = "a number of more digits than Python writes"
    AWKWARD = "an object without words"
    ITSELF = "a list that is in itself"
    ITSELF_BY_NAME = "a mapping that is in itself"
    DEEP = "a list of ten thousand brackets"


def real(value: Any) -> Any:
    """Return a value with those that cannot be written in their places."""
    kind = type(value)
    match value if kind in (Unwritable, dict, list, tuple) else None:
        case Unwritable.HUGE:
            return 10**5_000
        case Unwritable.AWKWARD:
            return Awkward()
        case Unwritable.ITSELF:
            own: list[Any] = []
            own.append(own)
            return own
        case Unwritable.ITSELF_BY_NAME:
            named: dict[str, Any] = {}
            named["x"] = named
            return named
        case Unwritable.DEEP:
            return reduce(lambda inner, _: [inner], range(10_000), 0)
        case dict():
            return {key: real(item) for key, item in value.items()}
        case list():
            return [real(item) for item in value]
        case tuple():
            return tuple(real(item) for item in value)
    return value


texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=20))
scalars: SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.sampled_from(NUMBERS), st.sampled_from(Unwritable), st.floats(), texts
)
nested: SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.one_of(texts, st.integers()), inner, max_size=3)
    ),
    max_leaves=6,
)
anything: SearchStrategy[Any] = st.one_of(nested, st.sampled_from(OBJECTS))


def mostly(right: SearchStrategy[Any], wrong: SearchStrategy[Any] = anything) -> SearchStrategy[Any]:
    """Return right values, and a wrong one now and then, so that not every input is refused for its first value."""
    return st.integers(0, 7).flatmap(lambda n: wrong if n == 7 else right)


def changed(texts_: SearchStrategy[Any], pieces: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """Return texts or bytes with some pieces of them dropped, doubled, swapped, or put in."""

    def mutated(whole: Any, edits: list[tuple[int, int, str, Any]]) -> Any:
        for at, length, kind, piece in edits:
            start = at % (len(whole) + 1)
            part = whole[start : start + length]
            put = {"drop": whole[:0], "double": part + part, "turn": part[::-1], "put": piece, "insert": piece + part}[kind]
            whole = whole[:start] + put + whole[start + length :]
        return whole

    kinds = st.sampled_from(("drop", "double", "turn", "put", "insert"))
    edits = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 12), kinds, pieces), max_size=4)
    return st.builds(mutated, texts_, edits)
