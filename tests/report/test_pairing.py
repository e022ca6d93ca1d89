"""Arms are compared seed by seed: pairs of unequal seeds would show nothing, or anything."""

import io
import re
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from harness.report import AblationResults, show
from harness.report.ablation import tables
from harness.scores import Score
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis
from harness.tracking import Record

ERROR = Score(key="test/error", label="error", better="lower", digits=2, compute=lambda trained: {})
SEEDS = (7, 2, 9, 0, 4, 5, 1, 3)  # in no order, so that none is made by a sort or by a position
ADVANTAGE = {0: 1.0, 1: 1.5, 2: 0.75, 3: 1.25, 4: 2.0, 5: 0.5, 7: 1.75, 9: 0.25}
MISSING = {("plain", 7), ("better", 0), ("better", 9)}


def results_of(missing: set[tuple[str, int]] = MISSING) -> AblationResults:
    """Results in which a seed makes a difference of hundreds to both arms, and the better arm one of `ADVANTAGE`."""
    study = Ablation(
        base=TrialSpec(dataset="digits"),
        arms={"plain": {}, "better": {"likelihood": "mse"}},
        budgets={"default": Budget(epochs=1, seeds=SEEDS)},
        hypotheses=(Hypothesis(better="better", worse="plain", metric=ERROR.key),),
        metrics=(ERROR,),
    )
    cells = study.cells("default")
    records: Mapping[str, Any] = {
        c.spec.id: Record(f"run-{c.arm}-{c.seed}", {ERROR.key: 100.0 * c.seed**2 - ADVANTAGE[c.seed] * (c.arm == "better")}, {})
        for c in reversed(cells)
        if (c.arm, c.seed) not in missing
    }
    return AblationResults(name="a_study", budget="default", study=study, cells=cells, records=records, failures={}, pictures={})


@pytest.mark.parametrize(
    ("missing", "common"),
    [(MISSING - {("plain", 7), ("better", 9)}, (1, 2, 3, 4, 5, 7, 9)), ({("plain", 5), ("better", 0)}, (1, 2, 3, 4, 7, 9))],
)
def test_pairs_are_made_of_equal_seeds_that_both_arms_have(missing: set[tuple[str, int]], common: tuple[int, ...]) -> None:
    results = results_of(missing)
    mean = sum(ADVANTAGE[s] for s in common) / len(common)
    (verdict,) = results.verdicts
    assert verdict.difference.n == len(common)
    assert verdict.difference.mean == pytest.approx(mean)
    assert verdict.difference.low > 0
    assert verdict.outcome == "confirmed"
    assert results.difference("plain", "better", ERROR.key).mean == pytest.approx(mean)
    assert results.difference("better", "plain", ERROR.key).high < 0


def test_what_a_report_shows_is_of_equal_seeds() -> None:
    results, screen = results_of({("plain", 5), ("better", 0)}), io.StringIO()
    show(results, Console(file=screen, width=100))
    assert "better by +1.25" in " ".join(screen.getvalue().split())
    (row,) = tables.difference_rows(results, [ERROR])
    name, interval = row
    assert name == "better - plain"
    mean, low, high = re.findall(r"[-+]\d+\.\d+", interval)
    assert mean == "-1.25"
    assert low[0] == high[0] == "-"


def test_arms_without_a_common_seed_are_not_compared() -> None:
    apart = {("plain", s) for s in SEEDS[:4]} | {("better", s) for s in SEEDS[4:]}
    results = results_of(apart)
    assert results.verdicts == []
    assert [h.better for h in results.unjudged] == ["better"]
