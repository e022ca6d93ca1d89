"""The tables of an ablation as filters over rows: a study's own scores are in them, and what a trial lacks has its reason."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from harness.report import AblationResults, show
from harness.report.ablation import tables
from harness.scores import SCORES, Score, compared
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis
from harness.tracking import Record

FID = Score(key="test/fid", label="FID", better="lower", digits=1, compute=lambda trained: {})
HIGHER = replace(FID, better="higher")
STUDY = Ablation(
    base=TrialSpec(dataset="digits"),
    arms={"bce": {}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=1, seeds=range(6))},
    hypotheses=(Hypothesis(better="mse", worse="bce", metric=FID.key),),
    metrics=(FID,),
)


def results_of(study: Ablation = STUDY, without: tuple[str, ...] = ()) -> AblationResults:
    """Made-up results in which mse has a FID of about 10 and bce one of about 20; tier B is there for mse alone."""
    draw = np.random.default_rng(0).normal
    cells = study.cells("default")
    records = {}
    for cell in cells:
        metrics = {key: draw() for key in study.scores if not key.endswith("/") and key not in without}
        metrics[FID.key] = {"mse": 10.0, "bce": 20.0}[cell.arm] + 0.1 * draw()
        if cell.arm == "bce":
            metrics = {k: v for k, v in metrics.items() if "grey_pmf" not in study.scores[k].needs}
        records[cell.spec.id] = Record("run", metrics, {})
    return AblationResults(name="a_study", budget="default", study=study, cells=cells, records=records, failures={}, pictures={})


@pytest.mark.parametrize("width", [80, 200])
def test_a_score_of_a_study_is_in_its_tables_and_its_verdict(width: int) -> None:
    results, screen = results_of(), io.StringIO()
    assert tables.comparing(results)[FID.group] == [FID]
    assert tables.to_show(results, width)[0] == FID
    assert [j.outcome for j in results.judgements] == ["confirmed"]
    show(results, Console(file=screen, width=width))
    shown = " ".join(screen.getvalue().split())
    assert "mse beats bce on FID" in shown
    assert "not recorded: no plan was stored" in shown
    assert "better by +10" in shown or "better by +9.9" in shown


def test_a_study_may_go_by_a_score_of_its_own() -> None:
    assert results_of(replace(STUDY, objective=FID.key)).winner.arm == "mse"
    assert results_of(replace(STUDY, objective=FID.key, metrics=(HIGHER,))).winner.arm == "bce"


def test_what_no_trial_has_is_left_out_with_the_reason() -> None:
    shown = [score for scores in compared(STUDY.scores).values() for score in scores]
    left_out = tables.left_out(results_of(without=("test/knn15_accuracy", "test/common_bits_exact")), shown)
    assert "15-NN accuracy takes classes of the images: none for any arm." in left_out
    assert "common head, exact (bits/dim) takes an evaluation that is full or thorough: none for any arm." in left_out
    assert len(left_out) == 2
    assert tables.left_out(results_of(), shown) == []


def test_tier_b_says_which_likelihood_has_none() -> None:
    results = results_of()
    bce, mse = tables.own_rows(results, [SCORES["test/own_bits"]])
    assert bce == ["bce", "none: a pseudo on grey levels"]
    assert "±" in mse[1]


def test_tables_are_as_wide_as_their_headings() -> None:
    results = results_of()
    for headings, rows in (tables.table_of(results, scores) for scores in tables.comparing(results).values()):
        assert {len(row) for row in rows} == {len(headings)}
    for _, rows in tables.native_rows(results):
        assert {len(row) for row in rows} == {len(tables.native_headings(results))}
