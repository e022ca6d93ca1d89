"""Lanes: the places of trials along the first dimension of a tensor."""

from collections.abc import Iterable
from itertools import groupby
from typing import TypeVar

T = TypeVar("T")


def runs(values: Iterable[T]) -> list[tuple[T, slice]]:
    """Return each run of equal neighbouring values, given one value per lane, as (value, slice of its lanes).

    >>> runs(["elu", "elu", "relu"])
    [('elu', slice(0, 2, None)), ('relu', slice(2, 3, None))]
    """
    groups, start = [], 0
    for value, equal in groupby(values):
        stop = start + len(list(equal))
        groups.append((value, slice(start, stop)))
        start = stop
    return groups


def bucket(lanes: int) -> int:
    """Return the number of lanes of the smallest program that holds this many trials.

    It is a power of 2, so that few programs serve all cohorts.
    """
    return 1 << max(0, lanes - 1).bit_length()
