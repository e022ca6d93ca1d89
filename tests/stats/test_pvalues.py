from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from harness.stats import holm
from harness.stats.pvalues import RESERVE, anytime, capital, holm_last_axis, one_sided, planned, student, weights

LOOKS = (6, 10, 16)


def test_student_is_scipys_paired_t() -> None:
    d = np.random.default_rng(0).normal(0.3, 1, (20, 7))
    assert student(d) == pytest.approx(stats.ttest_1samp(d, 0, axis=-1, alternative="greater").pvalue)
    assert student(d) + student(-d) == pytest.approx(np.ones(20))


def test_equal_differences_are_judged_by_their_signs() -> None:
    same = np.array([0.1 + 0.2, 0.3, 0.3, 0.3, 0.3, 0.3])  # equal but for rounding
    assert (student(same), student(-same), student(0 * same)) == (1 / 64, 1, 1)
    assert student([*same[:5], 0.301]) < 1e-9


def test_planned_looks_by_hand() -> None:
    d = np.random.default_rng(1).normal(0.5, 1, 16)
    first, second, third = (float(student(d[:look])) for look in LOOKS)
    assert planned(d[:5], LOOKS) == 1
    assert planned(d[:9], LOOKS) == pytest.approx(min(1, first * 32 / 6))
    assert planned(d[:10], LOOKS) == pytest.approx(min(1, first * 32 / 6, second * 32 / 10))
    assert planned(d, LOOKS) == pytest.approx(min(1, first * 32 / 6, second * 32 / 10, third * 32 / 16))
    assert planned(d, (16,)) == pytest.approx(third)
    assert sum(weights(LOOKS)) == 1


def test_too_few_seeds_show_nothing_and_cost_nothing() -> None:
    far = 100 + np.random.default_rng(0).normal(size=6)
    assert planned(far, (2, 5)) == 1
    assert planned(far, (2, 6)) == planned(far, (6,)) < 1e-6
    for n in range(6):
        assert one_sided(far[:n], (2, 5), unplanned=True) * 2 > 0.05


@pytest.mark.parametrize("unplanned", [False, True])
def test_p_values_only_fall_as_seeds_come(unplanned: bool) -> None:
    d = np.random.default_rng(2).normal(0.5, 1, (50, 20))
    path = np.array([one_sided(d[:, :n], LOOKS, unplanned=unplanned) for n in range(21)])
    assert (np.diff(path, axis=0) <= 0).all()
    assert (path[0] == 1).all()
    assert path[-1].min() < 0.01
    bets = np.array([anytime(d[:, :n]) for n in range(1, 21)])
    assert (np.diff(bets, axis=0) <= 0).all()
    assert (np.diff(bets, axis=0) == 0).any()


def test_unplanned_looks_add_a_test_and_take_a_tenth_of_the_level() -> None:
    d = np.random.default_rng(3).normal(1, 1, (200, 20))
    both, without = one_sided(d, (6,), unplanned=True), one_sided(d, (6,), unplanned=False)
    assert without == pytest.approx(np.minimum(1, student(d[:, :6]) / (1 - RESERVE)))
    assert both == pytest.approx(np.minimum(without, anytime(d) / RESERVE))
    assert (both < without).any()
    assert (both == without).any()


# ------------------------------------------------------------------------------------------------ bets


@pytest.fixture(scope="module")
def flipped() -> np.ndarray:
    """All 1,024 changes of sign of ten differences of very unequal sizes, one of them 0."""
    sizes = np.abs(np.random.default_rng(4).standard_t(1, 10))
    sizes[3] = 0
    return sizes * np.array(list(product([-1, 1], repeat=10)))


def test_capital_is_a_martingale_when_signs_are_fair(flipped: np.ndarray) -> None:
    path = capital(flipped)
    assert (path >= 0).all()
    assert path[:, 0].mean() == pytest.approx(1)
    by_signs = path.reshape(*[2] * 10, 10)
    for seed in range(1, 10):
        # Studies that agree before this seed own the same, and its bet changes that by nothing on average.
        yet_open = tuple(range(seed, 10))
        assert by_signs[..., seed].mean(yet_open) == pytest.approx(by_signs[..., seed - 1].mean(yet_open))


def test_capital_falls_when_the_reverse_is_true(flipped: np.ndarray) -> None:
    path = capital(flipped - 0.5).mean(0)
    assert (np.diff(path) <= 1e-12).all()
    assert path[-1] < 0.5


def test_anytime_p_values_are_rarely_small_when_signs_are_fair(flipped: np.ndarray) -> None:
    p = anytime(flipped)
    assert p.min() < 0.01
    for level in np.unique(p):
        assert (p <= level + 1e-12).mean() <= level


def test_bets_by_hand() -> None:
    # The first bet is on the sign alone; the second difference is a third of 0.75 times the first; the third is beyond it.
    stakes = np.linspace(0.5, 1, 11)
    path = capital([2.0, 0.5, -9.0])
    assert path == pytest.approx([(1 + stakes).mean(), ((1 + stakes) * (1 + stakes / 3)).mean(), path[2]])
    assert path[2] == pytest.approx(((1 + stakes) * (1 + stakes / 3) * (1 - stakes)).mean())


# ------------------------------------------------------------------------------------------------ Holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    for p in np.random.default_rng(5).uniform(0, 0.3, (20, 4)):
        closed = [
            max(
                min(1, len(family) * min(p[j] for j in family))
                for size in range(1, 5)
                for family in combinations(range(4), size)
                if i in family
            )
            for i in range(4)
        ]
        assert holm(p) == pytest.approx(closed)


def test_holm_takes_many_families_at_once() -> None:
    p = np.random.default_rng(6).uniform(size=(3, 2, 5))
    assert holm_last_axis(p)[1, 1] == pytest.approx(holm(p[1, 1].tolist()))
