"""Lanes: trials side by side in one tensor."""

from collections.abc import Iterable
from itertools import groupby
from typing import TypeVar

T = TypeVar("T")


def runs(values: Iterable[T]) -> list[tuple[T, slice]]:
    """Neighbouring equal values as one, with the lanes where they stand.

    >>> runs(["elu", "elu", "relu"])
    [('elu', slice(0, 2, None)), ('relu', slice(2, 3, None))]
    """
    found, start = [], 0
    for value, equal in groupby(values):
        stop = start + len(list(equal))
        found.append((value, slice(start, stop)))
        start = stop
    return found
