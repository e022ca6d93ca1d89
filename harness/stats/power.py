"""What a study could have seen: the smallest difference that it shows with 80 % power, and the seeds that a difference takes."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.stats.paired import ALPHA
from harness.stats.pvalues import FEWEST, RESERVE, one_sided, weights

POWER = 0.8
MOST = 1_000_000  # seeds; where a million do not suffice, a million is the answer
STUDIES = 500  # simulated for a test without a formula; their share has a standard error of 1.8 %
PRECISION = 1e-12  # relative, of a shift that is found by bisection
LARGEST = 1000.0  # standard deviations; a difference that is not seen then is never seen


def power_of_difference(shift: float, n: int, level: float) -> float:
    """Return the probability that a one-sided paired t test shows a difference of normal scores.

    Args:
        shift: The true difference in standard deviations of the paired differences.
        n: The number of seeds, at least 2.
        level: of the one-sided test.
    """
    return float(special.ndtr(shift * n**0.5 - _limits(n, level)).mean())


def power_of_equality(margin: float, n: int, level: float) -> float:
    """Return the probability that two one-sided t tests show arms without a difference to be equal within a margin.

    Args:
        margin: in standard deviations of the paired differences.
        n: The number of seeds, at least 2.
        level: of each of the two tests.
    """
    return float(np.maximum(0, 2 * special.ndtr(margin * n**0.5 - _limits(n, level)) - 1).mean())


@lru_cache(maxsize=1024)
def _limits(n: int, level: float) -> NDArray[np.float64]:
    """Return t's critical value times 400 equally likely spreads of n differences, in units of the true one."""
    spreads = np.sqrt(2 * special.gammaincinv((n - 1) / 2, (np.arange(400) + 0.5) / 400) / (n - 1))
    limits: NDArray[np.float64] = -special.stdtrit(n - 1, level) * spreads
    return limits


def detectable(n: int, looks: Sequence[int], *, claims: int, unplanned: bool) -> float:
    """Return the smallest difference that n seeds show with 80 % power, in standard deviations of the paired differences.

    For normal scores and a claim that Holm's correction treats worst. Over several planned looks it is that of the best one by
    itself, which is a little too large; for unplanned looks it is found by simulating 500 studies. It is inf if no difference
    would be shown.
    """
    level = ALPHA / 2 / claims
    if unplanned:
        return _simulated(n, tuple(looks), level)
    reached = [(look, weight) for look, weight in zip(looks, weights(looks), strict=True) if weight and look <= n]
    return min((_smallest(look, level * (1 - RESERVE) * weight) for look, weight in reached), default=float("inf"))


def _smallest(n: int, level: float) -> float:
    """Return the shift that a one-sided t test at n seeds shows with 80 % power."""
    return _bisected(lambda shift: power_of_difference(shift, n, level), LARGEST, PRECISION)


@lru_cache(maxsize=256)
def _simulated(n: int, looks: tuple[int, ...], level: float) -> float:
    """Return the shift that planned and unplanned looks up to n seeds show with 80 % power."""
    noise = np.random.default_rng(0).normal(size=(STUDIES, n))

    def power(shift: float) -> float:
        return float((one_sided(noise + shift, looks, unplanned=True) < level).mean())

    if power(LARGEST) < POWER:
        return float("inf")
    high = 1.0
    while power(high) < POWER:
        high *= 2
    return _bisected(power, high, 0.01, low=high / 2 if high > 1 else 0.0)


def _bisected(power: Callable[[float], float], high: float, precision: float, low: float = 0.0) -> float:
    """Return the shift at which a power that grows with it reaches 80 %, between `low` and `high`, to this relative precision."""
    while high - low > precision * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def seeds_needed(difference: float, spread: float, *, claims: int, looks: int = 1) -> int:
    """Return how many seeds show a difference with 80 % power, for normal scores; with several looks, those of the last.

    Args:
        difference: The true difference, above 0.
        spread: The standard deviation of the paired differences, in the same unit.
        claims: How many claims are judged together; the one that Holm's correction treats worst is meant.
        looks: The number of planned looks, evenly spaced.

    >>> seeds_needed(1.0, 1.0, claims=1), seeds_needed(1.0, 1.0, claims=3)
    (11, 14)
    """
    level = ALPHA / 2 / claims * _last_share(looks)
    return _seeds(lambda n: power_of_difference(difference / spread, n, level) if spread else 1.0)


def seeds_for_equality(margin: float, spread: float, *, claims: int, looks: int = 1) -> int:
    """Return how many seeds show arms without a difference to be equal within a margin, with 80 % power.

    The arguments are those of `seeds_needed`; `claims` counts those with a margin.
    """
    level = ALPHA / claims * _last_share(looks)
    return _seeds(lambda n: power_of_equality(margin / spread, n, level) if spread else 1.0)


def _last_share(looks: int) -> float:
    """Return the share of the level that the last of so many evenly spaced looks gets."""
    return (1 - RESERVE) * weights([FEWEST * (i + 1) for i in range(looks)])[-1]


def _seeds(power: Callable[[int], float]) -> int:
    """Return the smallest number of seeds with 80 % power, given a power that rises with them."""
    enough = FEWEST
    while power(enough) < POWER:
        enough *= 2
        if enough >= MOST:
            return MOST
    low, high = max(FEWEST - 1, enough // 2), enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high
