"""One-sided p-values of paired differences: at planned looks, at any number of looks, and Holm's correction over a family.

Every function takes many studies at once: the last axis of `differences` are seeds in the order in which they were planned, the
axes before it are studies, or studies and claims. All p-values are of the hypothesis that differences lie symmetrically around 0
or below it, against "above 0".
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

FEWEST = 6  # seeds; with fewer, differences that jump between two values agree too often: docs/science.md
RESERVE = 0.1  # the share of the level that is kept for looks nobody planned
FLAT = 1e-9  # differences this close to each other, relative to the largest, are equal but for rounding
STAKES = np.linspace(0.5, 1.0, 11)  # shares of the capital that are bet side by side
CLIP = 0.75  # of the median magnitude so far: what counts as a whole win or loss


def flat(differences: ArrayLike) -> NDArray[np.bool_]:
    """Return where differences, (..., n), are all equal but for rounding."""
    d = np.asarray(differences, dtype=float)
    same: NDArray[np.bool_] = np.ptp(d, -1) <= FLAT * np.abs(d).max(-1)
    return same


def student(differences: ArrayLike) -> NDArray[np.float64]:
    """Return the p-values of the paired t test (Student, 1908, https://doi.org/10.2307/2331554).

    Differences that are all equal have no spread for a t statistic to be made of; they are judged by the exact test of their signs,
    whose p is 2^-n.

    Args:
        differences: (..., n) with n of at least 2.

    >>> student([[1.0, 2.0, 3.0, 2.5, 1.5], [1.0] * 5]).round(4).tolist()
    [0.0024, 0.0312]
    """
    d = np.asarray(differences, dtype=float)
    n, mean, same = d.shape[-1], d.mean(-1), flat(d)
    t = mean * n**0.5 / np.where(same, 1, d.std(-1, ddof=1))
    return np.where(same, np.where(mean > 0, 0.5**n, 1.0), special.stdtr(n - 1, -t))


def capital(differences: ArrayLike) -> NDArray[np.float64]:
    """Return what a bettor on "above 0" who starts with 1 owns after each seed; its shape is that of `differences`, (..., n).

    Before seed i a share of the capital is staked on its sign; won or lost is the part min(1, |d_i| / s_i), where s_i is 0.75 times
    the median magnitude of the seeds before it. Eleven bettors with shares from 0.5 to 1 start with equal parts. While differences
    lie symmetrically around 0 or below it, whatever came before, no bet is favourable: the capital is a supermartingale and ever
    exceeds 1/p with a probability of at most p (Ville, 1939; Ramdas et al., 2023, https://arxiv.org/abs/2210.01948; Howard et al.,
    2021, https://arxiv.org/abs/1810.08240).
    """
    d = np.asarray(differences, dtype=float)
    owned, path = np.ones((*d.shape[:-1], len(STAKES))), np.empty(d.shape)
    for i in range(d.shape[-1]):
        scale = CLIP * np.median(np.abs(d[..., :i]), -1) if i else np.zeros(d.shape[:-1])
        won = np.where(scale > 0, np.clip(d[..., i] / np.where(scale > 0, scale, 1), -1, 1), np.sign(d[..., i]))
        owned *= 1 + STAKES * won[..., None]
        path[..., i] = owned.mean(-1)
    return path


def anytime(differences: ArrayLike) -> NDArray[np.float64]:
    """Return p-values that hold however often and for whatever reason one looked: 1 / (the largest capital so far), at most 1.

    Args:
        differences: (..., n) with n of at least 1.
    """
    p: NDArray[np.float64] = 1 / np.maximum(1, capital(differences).max(-1))
    return p


def weights(looks: Sequence[int]) -> list[float]:
    """Return the share of the level that each planned look gets: in proportion to its seeds, none with fewer than 6 seeds.

    >>> weights((6, 10, 16)), weights((2, 6))
    ([0.1875, 0.3125, 0.5], [0.0, 1.0])
    """
    seeds = [look if look >= FEWEST else 0 for look in looks]
    return [n / max(1, sum(seeds)) for n in seeds]


def planned(differences: ArrayLike, looks: Sequence[int]) -> NDArray[np.float64]:
    """Return p-values that hold over all planned looks: the smallest of p_j / w_j over the looks that are reached.

    A Bonferroni correction with `weights`: it holds whatever the looks have to do with one another.

    Args:
        differences: (..., n).
        looks: Numbers of seeds, ascending.
    """
    d = np.asarray(differences, dtype=float)
    p = np.ones(d.shape[:-1])
    for look, weight in zip(looks, weights(looks), strict=True):
        if weight and look <= d.shape[-1]:
            p = np.minimum(p, student(d[..., :look]) / weight)
    return p


def one_sided(differences: ArrayLike, looks: Sequence[int], *, unplanned: bool) -> NDArray[np.float64]:
    """Return p-values that hold over planned looks and, if `unplanned`, over any others as well.

    A weighted Bonferroni correction of both tests: min(p_planned / 0.9, p_anytime / 0.1). Without unplanned looks it is
    p_planned / 0.9 all the same, because nobody knows at a planned look whether another will follow it.
    """
    d = np.asarray(differences, dtype=float)
    p = planned(d, looks) / (1 - RESERVE)
    if unplanned and d.shape[-1]:
        p = np.minimum(p, anytime(d) / RESERVE)
    return np.minimum(1, p)


def holm_last_axis(p: ArrayLike) -> NDArray[np.float64]:
    """Return Holm's adjusted p-values over the last axis (Holm, 1979, https://www.jstor.org/stable/4615733)."""
    p = np.asarray(p, dtype=float)
    order = p.argsort(-1, kind="stable")
    raised = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(1, np.maximum.accumulate(raised, -1)), -1)
    return adjusted


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values in the order of p.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted: list[float] = holm_last_axis(p).tolist()
    return adjusted
