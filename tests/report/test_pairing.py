"""Arms are compared seed by seed: pairs of unequal seeds would show nothing, or anything."""

import io
import math
import re

import pytest
from rich.console import Console

from harness.report import AblationResults, show
from harness.report.ablation import tables
from harness.report.ablation.judging import margin
from harness.scores import Score
from harness.spec import TrialSpec
from harness.stats import Paired
from harness.study import Ablation, Budget, Hypothesis
from harness.tracking import Record

ERROR = Score(key="test/error", label="error", better="lower", digits=2, compute=lambda trained: {})
SEEDS = (7, 2, 9, 0, 4, 5, 1, 3)  # in no order, so that none is made by a sort or by a position
ADVANTAGE = {0: 1.0, 1: 1.5, 2: 0.75, 3: 1.25, 4: 2.0, 5: 0.5, 7: 1.75, 9: 0.25}
SIX = {("plain", 5), ("better", 0)}  # what is missing, so that six seeds are left


def results_of(missing: set[tuple[str, int]], better: str = "better") -> AblationResults:
    """Results in which a seed makes a difference of hundreds to both arms, and the better arm one of `ADVANTAGE`.

    The trials that are missing have failed. The study claims that one of its arms, `better`, is so.
    """
    study = Ablation(
        base=TrialSpec(dataset="digits"),
        arms={"plain": {}, "better": {"likelihood": "mse"}},
        budgets={"default": Budget(epochs=1, seeds=SEEDS)},
        hypotheses=(Hypothesis(better=better, worse="plain" if better == "better" else "better", metric=ERROR.key),),
        metrics=(ERROR,),
    )
    cells = study.cells("default")
    records = {
        c.spec.id: Record(f"run-{c.arm}-{c.seed}", {ERROR.key: 100.0 * c.seed**2 - ADVANTAGE[c.seed] * (c.arm == "better")}, {})
        for c in reversed(cells)
        if (c.arm, c.seed) not in missing
    }
    failures = {c.spec.id: "lost" for c in cells if c.spec.id not in records}
    return AblationResults(name="a_study", budget="default", study=study, cells=cells, records=records, failures=failures)


def shown(results: AblationResults) -> str:
    screen = io.StringIO()
    show(results, Console(file=screen, width=400))
    return " ".join(screen.getvalue().split())


@pytest.mark.parametrize(("missing", "common"), [(set(), SEEDS), (SIX, (1, 2, 3, 4, 7, 9))], ids=["all", "some failed"])
def test_a_verdict_is_of_equal_seeds_that_both_arms_have(missing: set[tuple[str, int]], common: tuple[int, ...]) -> None:
    said = shown(results_of(missing))
    assert f"better beats plain on error: confirmed with {len(common)} seeds" in said
    mean, low, _ = re.findall(r"better by (\d\S+) \[(\S+), (\S+)\]", said)[0]
    assert float(mean) == pytest.approx(sum(ADVANTAGE[s] for s in common) / len(common), abs=0.005)
    assert float(low) > 0


def test_a_table_of_differences_is_of_equal_seeds() -> None:
    results = results_of(SIX)
    assert results.difference("plain", "better", ERROR.key).low > 0
    ((name, interval),) = tables.difference_rows(results, [ERROR])
    assert name == "better - plain"
    mean, low, high = re.findall(r"[-+]\d+\.\d+", interval)
    assert mean == "-1.25"
    assert low[0] == high[0] == "-"


def test_arms_without_a_common_seed_are_not_compared() -> None:
    said = shown(results_of({("plain", s) for s in SEEDS[:4]} | {("better", s) for s in SEEDS[4:]}))
    assert "better beats plain on error: no verdict" in said
    assert "confirmed" not in said


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        ((2.08, 1.5, 2.66), "better by 2.08 [1.50, 2.66]"),
        ((-0.029, -0.046, -0.012), "worse by 0.03 [0.01, 0.05]"),
        ((-0.2, -0.7, 0.3), "worse by 0.20 [-0.30, +0.70]"),  # 0 is in it, so the signs are told
        ((0.5, -math.inf, math.inf), "better by 0.50"),  # of one seed
    ],
)
def test_a_difference_in_words_has_no_sign_and_an_interval_only_around_zero(
    difference: tuple[float, float, float], words: str
) -> None:
    mean, low, high = difference
    assert margin(Paired(mean=mean, low=low, high=high, n=6, improvement=0.5), 2) == words


def test_both_intervals_of_the_words_look_the_same_way() -> None:
    results = results_of(set())
    (judgement,) = results.judgements
    assert judgement.details.startswith("Better by 1.12 [0.6")
    low, high = judgement.bootstrap
    (other,) = results_of(set(), better="plain").judgements  # the claim the other way round
    assert other.details.startswith("Worse by 1.12 [0.6")
    assert f"bootstrap interval [{low:.2f}, {high:.2f}]" in judgement.details
    assert f"bootstrap interval [{low:.2f}, {high:.2f}]" in other.details


def test_a_share_of_all_pairs_of_seeds_is_said_of_more_than_one() -> None:
    one = {(arm, seed) for arm in ("plain", "better") for seed in SEEDS[1:]}
    (of_one,), (of_all,) = (results_of(missing).judgements for missing in (one, set()))
    assert of_one.details == "Better by 1.75"
    assert ", better in " in of_all.details
