import numpy as np
import pytest
from scipy import stats as scipy_stats

from harness.stats import Verdict, bootstrap_interval, holm, judge, paired, summary

STUDIES, HYPOTHESES, SEEDS = 2_000, 3, 6
A_LITTLE_OVER_5_PERCENT = 0.05 + 2 * (0.05 * 0.95 / STUDIES) ** 0.5  # two standard errors of the simulation


def test_paired_is_scipys_t_interval_and_exact_wilcoxon() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=8) + 0.5, rng.normal(size=8)
    got = paired(a, b)
    student = scipy_stats.ttest_rel(a, b).confidence_interval(0.95)
    assert got.n == 8
    assert got.mean == pytest.approx((a - b).mean())
    assert (got.low, got.high) == pytest.approx((student.low, student.high))
    for p, way in ((got.p_greater, "greater"), (got.p_less, "less")):
        assert p == pytest.approx(scipy_stats.wilcoxon(a, b, alternative=way, method="exact").pvalue)


def test_pairing_takes_out_what_seeds_share() -> None:
    seed_effect = np.array([0.0, 10, 20, 30, 40, 50])
    d = paired(seed_effect + np.array([1.0, 1.1, 0.9, 1.2, 0.8, 1.05]), seed_effect)
    assert d.p_greater == 1 / 64
    assert 0.8 <= d.low <= d.mean <= d.high <= 1.2


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_summary() -> None:
    assert (summary([1, 2, 3]).mean, summary([1, 2, 3]).spread, summary([1, 2, 3]).n) == (2, 1, 3)
    assert np.isnan(summary([1]).spread)


DRAWS = {
    "normal": lambda rng: rng.normal(size=SEEDS),
    "heavy tails": lambda rng: rng.standard_t(2, size=SEEDS),
    "skewed": lambda rng: rng.exponential(size=SEEDS),
}


@pytest.fixture(scope="module", params=DRAWS)
def null_studies(request: pytest.FixtureRequest) -> list[list[Verdict]]:
    """Studies in which no arm differs from another: what a seed does to every arm, plus each trial's own deviation."""
    rng, draw = np.random.default_rng(0), DRAWS[request.param]
    studies = []
    for _ in range(STUDIES):
        seed = 3 * rng.normal(size=SEEDS)
        studies.append(judge([(f"h{i}", seed + draw(rng), seed + draw(rng), "higher") for i in range(HYPOTHESES)]))
    return studies


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["confirmed", "refuted"])
def test_a_study_of_nothing_rarely_claims_something(outcome: str, null_studies: list[list[Verdict]]) -> None:
    wrong = np.mean([any(v.outcome == outcome for v in study) for study in null_studies])
    assert wrong <= A_LITTLE_OVER_5_PERCENT


def test_a_large_difference_is_confirmed_and_its_reverse_refuted() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(size=6), 10 + rng.normal(size=6)
    outcomes = [v.outcome for v in judge([("a", high, low, "higher"), ("b", low, high, "lower"), ("c", low, high, "higher")])]
    assert outcomes == ["confirmed", "confirmed", "refuted"]


def test_a_difference_that_some_seeds_contradict_is_not_shown() -> None:
    (verdict,) = judge([("a", [1.0, 2, 3, 4, 5, 6], [2.0, 1, 4, 3, 6, 5], "higher")])
    assert verdict.outcome == "not shown"
    assert verdict.sentence == "a: no difference shown with 6 seeds"


def test_two_seeds_give_no_verdict() -> None:
    (verdict,) = judge([("a", [10.0, 11.0], [1.0, 1.5], "higher")])
    assert verdict.outcome == "not shown"
    assert verdict.sentence == "a: no verdict, 2 seeds cannot show it (5 could)"


def test_one_seed_gives_no_verdict() -> None:
    (verdict,) = judge([("a", [10.0], [1.0], "higher")])
    assert verdict.outcome == "not shown"
    assert "1 seed cannot" in verdict.sentence


def test_more_hypotheses_need_more_seeds() -> None:
    a, b = [10.0, 11, 12, 13, 14.5], [1.0, 1, 1, 1, 1]
    assert judge([("a", a, b, "higher")])[0].outcome == "confirmed"
    assert judge([(f"h{i}", a, b, "higher") for i in range(3)])[0].outcome == "not shown"


def test_identical_values_show_no_difference() -> None:
    same = [1.0, 2, 3, 4, 5, 6]
    (verdict,) = judge([("a", same, same, "higher")])
    assert verdict.outcome == "not shown"
    assert (verdict.difference.mean, verdict.difference.low, verdict.difference.high) == (0, 0, 0)


def test_a_constant_difference_counts_every_seed() -> None:
    d = paired(np.arange(6) + 1.0, np.arange(6) + 0.0)
    assert (d.mean, d.low, d.high, d.p_greater) == (1, 1, 1, 1 / 64)


def test_the_probability_of_improvement_counts_all_pairs_of_seeds() -> None:
    a, b = [1.0, 2, 3, 5], [2.0, 2, 0, 4]
    by_hand = np.mean([[1.0 if x > y else 0.5 if x == y else 0.0 for y in b] for x in a])
    assert paired(a, b).improvement == by_hand
    assert paired(b, a).improvement == 1 - by_hand
    (verdict,) = judge([("a", [1.0, 2], [3.0, 4], "lower")])
    assert verdict.difference.improvement == 1


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
    other = scipy_stats.bootstrap((a, b), lambda a, b: np.mean(a - b, axis=-1), paired=True, rng=rng).confidence_interval
    assert bootstrap_interval(a, b) == pytest.approx((other.low, other.high), abs=0.03)
