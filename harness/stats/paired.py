"""Comparisons of arms that share seeds: numbers in, verdicts out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
ALPHA = 1 - LEVEL


@dataclass(frozen=True)
class Summary:
    """A score of one arm over its seeds.

    Attributes:
        mean: Mean over seeds.
        spread: Standard deviation between seeds, NaN with one seed.
        n: The number of seeds.
    """

    mean: float
    spread: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The comparison of two arms a and b by their differences a - b, seed by seed.

    Attributes:
        mean: Mean difference.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        p_greater: One-sided p-value of "a is greater".
        p_less: One-sided p-value of "a is less".
        n: The number of seeds.
        improvement: The probability that a seed of a exceeds a seed of b, over all pairs, ties counting half (Agarwal et al.,
            2021, https://arxiv.org/abs/2108.13264).
    """

    mean: float
    low: float
    high: float
    p_greater: float
    p_less: float
    n: int
    improvement: float


def summary(values: Sequence[float]) -> Summary:
    """Return mean, standard deviation and number of one score per seed."""
    x = np.asarray(values, dtype=float)
    return Summary(float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else float("nan"), len(x))


def t_quantile(probability: float, freedom: int) -> float:
    """Return a quantile of Student's t distribution with so many degrees of freedom.

    >>> round(t_quantile(0.95, 23), 3)
    1.714
    """
    return float(stats.t.ppf(probability, freedom))


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Compare the scores of two arms over the same seeds, in the same order.

    The interval is Student's 95 % interval of the mean difference: with 6 seeds its coverage is 95 %, that of a BCa bootstrap 87 %
    (docs/log.md). The tests are Wilcoxon's signed-rank, one-sided, exact (Wilcoxon, 1945, https://doi.org/10.2307/3001968). With
    one seed the interval is unbounded and both p-values are 1.

    >>> d = paired([2.0, 2.1, 2.2, 2.3, 2.4, 2.6], [1.0, 1.0, 1.3, 1.2, 1.2, 1.1])
    >>> round(d.mean, 3), round(d.low, 3), round(d.high, 3), round(d.p_greater, 4)
    (1.133, 0.917, 1.35, 0.0156)
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    d = first - second
    mean, n = float(d.mean()), len(d)
    improvement = float((np.sign(first[:, None] - second) + 1).mean() / 2)
    if n < 2:
        return Paired(mean=mean, low=-np.inf, high=np.inf, p_greater=1.0, p_less=1.0, n=n, improvement=improvement)
    half = t_quantile((1 + LEVEL) / 2, n - 1) * float(d.std(ddof=1)) / n**0.5
    greater, less = (float(stats.wilcoxon(d, alternative=side).pvalue) if d.any() else 1.0 for side in ("greater", "less"))
    low, high = mean - half, mean + half
    return Paired(mean=mean, low=low, high=high, p_greater=greater, p_less=less, n=n, improvement=improvement)


def bootstrap_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % BCa bootstrap interval of the mean of a - b over paired seeds (Efron, 1987, https://doi.org/10.2307/2289144).

    Reports show it beside Student's interval, but no verdict uses it: with 6 seeds it misses the true mean in 13 % of studies
    instead of 5 % (docs/log.md). With one seed it is unbounded.
    """
    d = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    if len(d) < 2:
        return -np.inf, np.inf
    if np.ptp(d) == 0:
        return float(d[0]), float(d[0])
    rng = np.random.default_rng(0)
    interval = stats.bootstrap((d,), np.mean, confidence_level=LEVEL, method="BCa", rng=rng).confidence_interval
    return float(interval.low), float(interval.high)
