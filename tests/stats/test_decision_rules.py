"""What the rule of verdicts promises, in simulated studies; tests/helpers/decision_rules.py makes the whole table."""

import numpy as np
import pytest
from decision_rules import CLAIMS, KINDS, LAST, LOOKS, called_equal, draw, false_claims, seeds_used, shipped, ways_to_look, wilcoxon
from scipy import stats

from harness.stats import Claim, judge

STUDIES = 2_500
A_LITTLE_OVER_5_PERCENT = 0.05 + 2 * (0.05 * 0.95 / STUDIES) ** 0.5  # two standard errors of the simulation


@pytest.mark.parametrize("unplanned", [False, True])
def test_the_simulated_rule_is_the_one_that_judges(unplanned: bool) -> None:
    d = np.random.default_rng(0).normal(size=(60, 3, 12)) + np.array([0, 1, -1.5])[:, None]
    looks = (6, 12)
    better, worse = shipped(d, looks, unplanned=unplanned)
    equal = called_equal(d, 1.5, looks, unplanned=unplanned)
    outcomes = set()
    for study in range(len(d)):
        zero = np.zeros(12)
        verdicts = judge(
            [
                Claim(words="", better=x, worse=zero, direction="higher", looks=looks, unplanned=unplanned, margin=1.5)
                for x in d[study]
            ]
        )
        for i, verdict in enumerate(verdicts):
            decided = (
                "confirmed" if better[study, i] else "refuted" if worse[study, i] else "equal" if equal[study, i] else "not shown"
            )
            assert verdict.outcome == decided
        outcomes |= {v.outcome for v in verdicts}
    assert outcomes == {"confirmed", "refuted", "equal", "not shown"}


def test_the_compared_wilcoxon_is_scipys() -> None:
    d = np.random.default_rng(0).normal(0.5, 1, (20, 9))
    assert wilcoxon(d) == pytest.approx(stats.wilcoxon(d, axis=-1, alternative="greater", method="exact").pvalue)


@pytest.mark.slow
@pytest.mark.parametrize("claims", CLAIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_study_of_nothing_rarely_claims_something_in_25_looks(kind: str, claims: int) -> None:
    d = draw(kind, np.random.default_rng(claims), (STUDIES, claims, LAST))
    rates = {way: false_claims(decided) for way, decided in ways_to_look(d).items()}
    assert max(rates.values()) <= A_LITTLE_OVER_5_PERCENT, rates


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_arms_that_differ_by_the_margin_are_rarely_called_equal(kind: str) -> None:
    for claims in (1, 3):
        d = draw(kind, np.random.default_rng(claims), (STUDIES, claims, LAST))
        for margin in (1, 2):
            for n, looks, unplanned in ((6, (6,), False), (16, LOOKS, False), (LAST, (6,), True)):
                wrong = called_equal(d[..., :n] + margin, margin, looks, unplanned=unplanned).any(-1).mean()
                assert wrong <= A_LITTLE_OVER_5_PERCENT, (claims, margin, n)


@pytest.mark.parametrize("kind", KINDS)
def test_planned_looks_need_a_third_less_seeds_at_equal_power(kind: str) -> None:
    d = draw(kind, np.random.default_rng(0), (STUDIES, 1, LOOKS[-1])) + 2
    power, seeds = seeds_used(d)
    assert seeds <= 0.7 * LOOKS[-1]
    assert power >= shipped(d, (LOOKS[-1],))[0].mean() - 0.01
