import numpy as np
import pytest
from scipy import stats as scipy_stats

from harness.stats import bootstrap_interval, paired, summary


def test_paired_has_scipys_t_interval() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=8) + 0.5, rng.normal(size=8)
    got = paired(a, b)
    student = scipy_stats.ttest_rel(a, b).confidence_interval(0.95)
    assert got.n == 8
    assert got.mean == pytest.approx((a - b).mean())
    assert (got.low, got.high) == pytest.approx((student.low, student.high))


def test_pairing_takes_out_what_seeds_share() -> None:
    seed_effect = np.array([0.0, 10, 20, 30, 40, 50])
    d = paired(seed_effect + np.array([1.0, 1.1, 0.9, 1.2, 0.8, 1.05]), seed_effect)
    assert 0.8 <= d.low <= d.mean <= d.high <= 1.2


def test_summary() -> None:
    assert (summary([1, 2, 3]).mean, summary([1, 2, 3]).spread, summary([1, 2, 3]).n) == (2, 1, 3)
    assert np.isnan(summary([1]).spread)


def test_few_seeds_have_wide_intervals_or_none() -> None:
    assert (paired([3.0], [1.0]).mean, paired([3.0], [1.0]).low, paired([3.0], [1.0]).high) == (2, -np.inf, np.inf)
    none = paired([], [])
    assert (none.n, none.low, none.high) == (0, -np.inf, np.inf)
    assert np.isnan([none.mean, none.improvement]).all()
    constant = paired(np.arange(6) + 1.0, np.arange(6) + 0.0)
    assert (constant.mean, constant.low, constant.high) == (1, 1, 1)


def test_the_probability_of_improvement_counts_all_pairs_of_seeds() -> None:
    a, b = [1.0, 2, 3, 5], [2.0, 2, 0, 4]
    by_hand = np.mean([[1.0 if x > y else 0.5 if x == y else 0.0 for y in b] for x in a])
    assert paired(a, b).improvement == by_hand
    assert paired(b, a).improvement == 1 - by_hand


def test_the_bootstrap_interval_holds_the_mean_and_narrows_with_seeds() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.normal(1, 1, size=6), rng.normal(1, 1, size=200)
    for d in (few, many):
        low, high = bootstrap_interval(d, np.zeros_like(d))
        assert low < d.mean() < high
        assert bootstrap_interval(d, np.zeros_like(d)) == (low, high)
    # For many seeds the central limit theorem holds, and it is Student's.
    student = paired(many, np.zeros(200))
    assert (low, high) == pytest.approx((student.low, student.high), abs=0.02)
    assert bootstrap_interval([1.0, 2.0], [0.0, 1.0]) == (1, 1)
    assert bootstrap_interval([1.0], [0.0]) == (-np.inf, np.inf)


def test_the_bootstrap_interval_is_scipys_of_paired_samples() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.exponential(size=12) + 1, rng.exponential(size=12)
    other = scipy_stats.bootstrap((a - b,), np.mean, method="BCa", rng=np.random.default_rng(0)).confidence_interval
    assert bootstrap_interval(a, b) == pytest.approx((other.low, other.high), rel=1e-9)
