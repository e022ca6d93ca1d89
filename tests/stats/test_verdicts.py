from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.stats import Claim, judge, seeds_needed, settled
from harness.stats.power import seeds_for_equality
from harness.stats.pvalues import RESERVE

UP = [1.0, 1.2, 0.9, 1.1, 1.3, 1.0, 0.8, 1.2, 1.1, 0.9]
MIXED = [1.0, -1.1, 0.9, -1.2, 1.3, -0.8, 0.7, -0.9, 1.1, -1.0]
DIRECTIONS = ("higher", "lower")


def claim(differences: Sequence[float], *, looks: tuple[int, ...] = (6,), **facts: Any) -> Claim:
    """Return a claim "a" with these differences, positive as claimed."""
    base = np.linspace(3, 7, len(differences))
    sign = -1 if facts.get("direction") == "lower" else 1
    values = {"direction": "higher", **facts}
    return Claim(words="a", better=base + sign * np.asarray(differences), worse=base, looks=looks, **values)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_clear_difference_is_confirmed_and_its_reverse_refuted(direction: str) -> None:
    up, down = judge([claim(UP[:6], direction=direction), claim([-d for d in UP[:6]], direction=direction)])
    assert (up.outcome, down.outcome) == ("confirmed", "refuted")
    assert (up.sentence, down.sentence) == ("a: confirmed with 6 seeds", "a: no, the reverse holds with 6 seeds")
    assert up.rule == "paired t at 6 planned seeds"
    assert up.difference.low > 0 > down.difference.high
    assert up.p_equal is up.seeds_for_margin is None
    assert settled(up)
    assert settled(down)


@pytest.mark.parametrize("unplanned", [False, True])
def test_swapping_the_arms_swaps_the_sides(unplanned: bool) -> None:
    rng = np.random.default_rng(0)
    opposite = {"confirmed": "refuted", "refuted": "confirmed", "not shown": "not shown", "equal": "equal"}
    outcomes = set()
    for shift in (-2.0, -1, 0, 1, 2):
        a, b = rng.normal(shift, 0.7, 9), rng.normal(0, 0.7, 9)
        facts: dict[str, Any] = {"words": "a", "direction": "higher", "looks": (6, 9), "unplanned": unplanned, "margin": 1.2}
        (one,), (other,) = (judge([Claim(better=x, worse=y, **facts)]) for x, y in ((a, b), (b, a)))
        assert other.outcome == opposite[one.outcome]
        assert (other.p_adjusted, other.p_equal) == pytest.approx((one.p_adjusted, one.p_equal))
        assert other.difference.mean == pytest.approx(-one.difference.mean)
        assert other.detectable == pytest.approx(one.detectable)
        outcomes.add(one.outcome)
    assert outcomes >= {"confirmed", "refuted"}


def test_p_is_two_sided_and_pays_for_the_reserve_and_the_family() -> None:
    two_sided = stats.ttest_1samp([*MIXED[:5], 2.0], 0).pvalue
    (alone,) = judge([claim([*MIXED[:5], 2.0])])
    assert alone.p_adjusted == pytest.approx(two_sided / (1 - RESERVE))
    first, *_ = judge([claim(UP[:6]), claim([]), claim([])])
    (by_itself,) = judge([claim(UP[:6])])
    assert first.p_adjusted == pytest.approx(3 * by_itself.p_adjusted)


def test_nothing_shown_says_what_could_have_been_seen() -> None:
    (verdict,) = judge([claim(MIXED[:6], unit="nats", digits=1)])
    assert verdict.outcome == "not shown"
    spread = np.std(MIXED[:6], ddof=1)
    assert verdict.detectable == pytest.approx(1.5 * spread, rel=0.05)
    assert (
        verdict.sentence
        == f"a: no difference shown with 6 seeds, which would have shown {verdict.detectable:.1f} nats (80 % power)"
    )
    assert not settled(verdict)
    few, none = judge([claim(UP[:2], looks=(2,)), claim([], unplanned=True)])
    assert few.sentence == "a: no verdict, 2 seeds cannot show it (6 could)"
    assert none.sentence == "a: no verdict, 0 seeds cannot show it (6 could)"
    (far,) = judge([claim(UP[:7], looks=(9,), unplanned=True)])
    assert far.sentence == "a: no difference shown with 7 seeds, which could not have shown any difference"


def test_a_margin_says_how_many_seeds_it_takes() -> None:
    (verdict,) = judge([claim(MIXED[:6], margin=0.5, unit="nats", digits=1)])
    spread = float(np.std(MIXED[:6], ddof=1))
    needed = max(seeds_needed(0.5, spread, claims=1), seeds_for_equality(0.5, spread, claims=1))
    assert verdict.seeds_for_margin == needed > 30
    assert verdict.sentence.endswith(f"(80 % power); 0.5 nats would take {needed}")


def test_equality_is_schuirmann_s() -> None:
    d = np.array(MIXED[:6]) / 3
    (verdict,) = judge([claim(d, margin=0.6, digits=1)])
    lower = stats.ttest_1samp(d, -0.6, alternative="greater").pvalue
    upper = stats.ttest_1samp(d, 0.6, alternative="less").pvalue
    assert verdict.p_equal == pytest.approx(max(lower, upper) / (1 - RESERVE))
    assert verdict.outcome == "equal"
    assert verdict.sentence == "a: equal within 0.6 with 6 seeds"
    assert settled(verdict)
    # The same as: the interval at 1 - 2 alpha lies inside the margin.
    for margin in (0.2, 0.4, 0.5, 0.6):
        (judged,) = judge([claim(d, margin=margin)])
        inside = stats.ttest_1samp(d, 0).confidence_interval(1 - 2 * 0.05 * (1 - RESERVE))
        assert (judged.outcome == "equal") == (-margin < inside.low and inside.high < margin)


def test_only_claims_with_a_margin_share_the_level_of_equality() -> None:
    d = np.array(MIXED[:6]) / 3
    (alone,), (beside, _), (shared, _) = (
        judge(claims)
        for claims in ([claim(d, margin=0.6)], [claim(d, margin=0.6), claim([])], [claim(d, margin=0.6), claim([], margin=0.6)])
    )
    assert alone.p_equal is not None
    assert beside.p_equal == alone.p_equal
    assert shared.p_equal == pytest.approx(2 * alone.p_equal)


def test_a_small_sure_difference_is_confirmed_and_within_the_margin() -> None:
    (verdict,) = judge([claim(UP[:6], margin=5.0, unit="nats", digits=1)])
    assert verdict.outcome == "confirmed"
    assert verdict.sentence == "a: confirmed with 6 seeds, and equal within 5.0 nats"


def test_planned_looks_rest_on_the_seeds_of_the_last_look_reached() -> None:
    looks = (6, 10, 16)
    early, first, second = (judge([claim(MIXED[:n], looks=looks)])[0] for n in (5, 9, 10))
    assert (early.outcome, early.p_adjusted) == ("too early", 1)
    assert early.sentence == "a: too early, 5 seeds; the first look is planned at 6"
    assert early.rule == "planned looks at 6, 10, 16: none yet"
    assert (first.difference.n, second.difference.n) == (6, 10)
    assert first.rule == "planned looks at 6, 10, 16: the 1st"
    assert second.rule == "planned looks at 6, 10, 16: the 2nd"
    assert not settled(early)


def test_what_a_planned_look_confirmed_stays_confirmed_and_is_not_confirmed_by_a_peek() -> None:
    (planned,) = judge([claim([*UP[:6], -1.0, -1.0, 1.5], looks=(6, 10))])
    (more,) = judge([claim([*UP[:6], -1.0, -1.0, 1.5, 1.0], looks=(6, 10))])
    assert planned.outcome == more.outcome == "confirmed"
    (peek,) = judge([claim([*MIXED[:6], *UP[:3]], unplanned=True)])
    assert peek.outcome == "not shown"
    assert peek.difference.n == 9


def test_unplanned_looks_are_judged_by_a_test_that_holds_for_any_number() -> None:
    d = [0.1, -0.1, *([1.0, 1.1, 0.9] * 6)]
    (verdict,) = judge([claim(d, unplanned=True)])
    assert verdict.outcome == "confirmed"
    assert verdict.rule == "a test for any number of looks, 20 seeds, and paired t at 6 planned seeds"
    (before_the_plan,) = judge([claim(UP[:4], unplanned=True)])
    assert before_the_plan.outcome == "not shown"
    (by_plan,) = judge([claim(UP[:9], unplanned=True)])
    assert by_plan.outcome == "confirmed"


def test_seeds_that_turn_a_difference_around_take_its_verdict_away() -> None:
    (verdict,) = judge([claim([*UP[:6], *[-3.0] * 3], unplanned=True)])
    assert verdict.difference.mean < 0
    assert verdict.outcome == "not shown"


def test_arms_without_a_difference_or_without_spread() -> None:
    same, constant, seven = judge([claim([0.0] * 6), claim([1.0] * 6), claim([1.0] * 9, looks=(9,))])
    assert (same.outcome, same.difference.mean, same.detectable) == ("not shown", 0, np.inf)
    assert same.sentence == "a: no difference shown with 6 seeds, and without any spread nobody knows what they would have shown"
    assert constant.outcome == "not shown"
    assert seven.outcome == "confirmed"
    assert seven.seeds_for_margin is None


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("unplanned", [False, True])
@pytest.mark.parametrize("margin", [None, 0.5])
def test_hardly_any_results_give_no_verdict(n: int, unplanned: bool, margin: float | None) -> None:
    (verdict,) = judge([claim([1.0] * n, unplanned=unplanned, margin=margin)])
    assert verdict.outcome == ("not shown" if unplanned else "too early")
    assert (verdict.difference.n, verdict.p_adjusted, verdict.detectable) == (n, 1, np.inf)


def test_no_claims_no_verdicts() -> None:
    assert judge([]) == []
