import numpy as np
import pytest
from scipy import stats

from harness.stats import ALPHA, seeds_needed
from harness.stats.power import (
    MOST,
    POWER,
    detectable,
    power_of_difference,
    power_of_equality,
    seeds_for_equality,
)
from harness.stats.pvalues import FEWEST, RESERVE, one_sided


def test_power_of_a_difference_is_the_noncentral_t_s() -> None:
    for shift, n, level in ((0.5, 34, 0.025), (1.5, 6, 0.004), (0.1, 12, 0.05)):
        exact = stats.nct.sf(stats.t.isf(level, n - 1), n - 1, shift * n**0.5)
        assert power_of_difference(shift, n, level) == pytest.approx(exact, abs=2e-3)


def test_34_pairs_see_half_a_standard_deviation() -> None:
    # G*Power 3.1: paired t, dz = 0.5, 5 % two-sided, 80 %: 34 pairs, actual power 0.8078.
    assert power_of_difference(0.5, 34, 0.025) == pytest.approx(0.8078, abs=1e-3)
    assert power_of_difference(0.5, 33, 0.025) < POWER


def test_power_of_equality_is_that_of_two_one_sided_tests() -> None:
    d = np.random.default_rng(0).normal(size=(20_000, 8))
    lower = stats.ttest_1samp(d, -1.2, axis=-1, alternative="greater").pvalue
    upper = stats.ttest_1samp(d, 1.2, axis=-1, alternative="less").pvalue
    assert power_of_equality(1.2, 8, 0.05) == pytest.approx(float((np.maximum(lower, upper) < 0.05).mean()), abs=0.01)


@pytest.mark.parametrize(
    ("n", "looks", "claims", "unplanned"),
    [(6, (6,), 1, False), (6, (6,), 3, False), (16, (6, 10, 16), 3, False), (16, (6,), 1, True), (12, (6,), 6, True)],
)
def test_what_is_detectable_is_seen_in_four_of_five_studies(n: int, looks: tuple[int, ...], claims: int, unplanned: bool) -> None:
    shift = detectable(n, looks, claims=claims, unplanned=unplanned)
    d = np.random.default_rng(1).normal(shift, 1, (4000, n))
    power = (one_sided(d, looks, unplanned=unplanned) < ALPHA / 2 / claims).mean()
    assert POWER - 0.03 < power < POWER + 0.06  # planned looks before the last one add a little


def test_too_few_seeds_see_nothing() -> None:
    assert detectable(5, (6,), claims=1, unplanned=False) == np.inf
    assert detectable(5, (5,), claims=1, unplanned=False) == np.inf
    assert detectable(7, (9,), claims=1, unplanned=True) == np.inf
    assert detectable(9, (6,), claims=1, unplanned=False) == detectable(6, (6,), claims=1, unplanned=False)


def test_more_seeds_see_less_and_more_claims_need_more() -> None:
    seen = [detectable(n, (n,), claims=1, unplanned=False) for n in (6, 8, 12, 20)]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] < detectable(6, (6,), claims=3, unplanned=False)
    assert detectable(20, (6, 10, 20), claims=1, unplanned=False) > seen[-1]


def test_seeds_needed_are_the_fewest_with_that_power() -> None:
    n = seeds_needed(1.6, 2.0, claims=3)
    level = ALPHA / 2 / 3 * (1 - RESERVE)
    assert power_of_difference(0.8, n, level) >= POWER > power_of_difference(0.8, n - 1, level)
    assert detectable(n, (n,), claims=3, unplanned=False) <= 0.8 < detectable(n - 1, (n - 1,), claims=3, unplanned=False)
    assert seeds_needed(1.6, 2.0, claims=1) < n < seeds_needed(1.6, 2.0, claims=3, looks=3)
    assert seeds_needed(100.0, 1.0, claims=1) == seeds_needed(1.0, 0.0, claims=1) == FEWEST
    assert seeds_needed(1e-9, 1.0, claims=1) == MOST


def test_seeds_for_equality_are_the_fewest_with_that_power() -> None:
    n = seeds_for_equality(0.5, 1.0, claims=2)
    level = ALPHA / 2 * (1 - RESERVE)
    assert power_of_equality(0.5, n, level) >= POWER > power_of_equality(0.5, n - 1, level)
    assert seeds_for_equality(0.5, 1.0, claims=1) < n < seeds_for_equality(0.5, 1.0, claims=2, looks=3)
