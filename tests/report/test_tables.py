"""The tables of an ablation as filters over rows: a study's own scores are in them, and what a trial lacks has its reason."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from harness.report import AblationResults, show
from harness.report.ablation import tables
from harness.scores import SCORES, Score, compared
from harness.scores.soundness import SIGNS
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
        metrics |= {sign.score.key: 0.0 for sign in SIGNS}
        metrics[FID.key] = {"mse": 10.0, "bce": 20.0}[cell.arm] + 0.1 * draw()
        if cell.arm == "bce":
            metrics = {k: v for k, v in metrics.items() if "grey_pmf" not in study.scores[k].needs}
        records[cell.spec.id] = Record("run", metrics, {})
    return AblationResults(name="a_study", budget="default", study=study, cells=cells, records=records, failures={})


def test_a_stream_of_ascii_gets_words_for_arrows() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")  # fails on any other character
    show(results_of(), Console(file=stream, width=120))
    stream.seek(0)
    shown = stream.read()
    assert "(low)" in shown
    assert "mean +- sd over n seeds" in shown


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
    assert re.search(r"better by (10|9\.9)\S* \[\d+\.\d, \d+\.\d\]", shown)


def test_a_study_may_go_by_a_score_of_its_own() -> None:
    assert results_of(replace(STUDY, objective=FID.key)).winner.arm == "mse"
    assert results_of(replace(STUDY, objective=FID.key, metrics=(HIGHER,))).winner.arm == "bce"


def test_what_no_trial_has_is_left_out_with_the_reason() -> None:
    shown = [score for scores in compared(STUDY.scores).values() for score in scores]
    left_out = tables.left_out(results_of(without=("test/knn15_accuracy", "test/common_bits_exact")), shown)
    assert "15-NN accuracy takes labels of 2 to 1,000 classes and at least 15 training images: none for any arm." in left_out
    assert "common head, exact (bits/dim) takes an evaluation that is full or thorough: none for any arm." in left_out
    assert len(left_out) == 2
    assert tables.left_out(results_of(), shown) == []


def test_what_no_arm_asked_for_is_not_missed_and_what_one_has_is_shown() -> None:
    asked = tuple(key for key, row in SCORES.items() if row.asked_for)
    assert {"ema/test/elbo", "ema/test/common_bits", "train/best_epoch"} < set(asked)
    shown = [score for scores in compared(STUDY.scores).values() for score in scores]
    none = results_of(without=asked)
    assert tables.left_out(none, shown) == []
    assert not any("averaged" in heading for heading in tables.native_headings(none))
    headings, (rows, *_) = tables.native_headings(results_of()), tables.native_rows(results_of())
    assert "ELBO (nats), averaged weights ↑" in headings
    assert all(len(row) == len(headings) for row in rows[1])


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


def changed(results: AblationResults, arm: str, seeds: int, **metrics: float) -> AblationResults:
    """The same results, with other scores of an arm's first seeds."""
    ids = {c.spec.id for c in results.cells if c.arm == arm and c.seed < seeds}
    names = {name.replace("__", "/"): value for name, value in metrics.items()}
    records = {i: replace(r, metrics={**r.metrics, **names}) if i in ids else r for i, r in results.records.items()}
    return replace(results, records=records)


def test_an_arm_that_diverged_is_marked_in_the_terminal_and_in_the_tables() -> None:
    results = changed(results_of(), "mse", 2, diagnostics__lost_elbo=23.1)
    screen = io.StringIO()
    show(results, Console(file=screen, width=120))
    assert "mse (2 diverged)" in screen.getvalue()
    assert "void  mse: 2 of 6 seeds diverged, no score of theirs is one; seed 0: worse than an untrained model" in screen.getvalue()
    assert "bce (" not in screen.getvalue()
    _, rows = tables.table_of(results, [SCORES["test/kl"]])
    assert [row[0] for row in rows] == ["bce", "mse (2 diverged)"]
    assert tables.divergences(results_of()) == []


def test_what_the_quadrature_did_not_resolve_is_left_out_with_that_reason() -> None:
    exact = SCORES["test/exact_log_px"]
    results = results_of(without=(exact.key,))
    assert tables.left_out(changed(results, "bce", 6, test__exact_resolved=1.0), [exact]) != []
    results = changed(changed(results, "bce", 6, test__exact_resolved=0.0), "mse", 6, test__exact_resolved=0.0)
    assert tables.left_out(results, [exact]) == [
        "exact log p(x) (nats) was not resolved within the quadrature's budget: none for any arm."
    ]


def test_a_study_of_one_arm_and_one_seed_shows_its_scores() -> None:
    one = replace(STUDY, arms={"bce": {}}, budgets={"default": Budget(epochs=1, seeds=[0])}, hypotheses=())
    results = results_of(one)
    assert len(tables.to_show(results, 80)) == tables.NARROW_COLUMNS
    assert tables.to_show(results, 80)[0] == FID
    screen = io.StringIO()
    show(results, Console(file=screen, width=80))
    assert "FID" in screen.getvalue()


def test_a_column_that_says_nothing_beside_others_is_still_dropped() -> None:
    same = changed(changed(results_of(), "bce", 6, test__kl=2.0), "mse", 6, test__kl=2.0)
    assert tables.varying(same, [SCORES["test/kl"], SCORES["test/ssim"]]) == [SCORES["test/ssim"]]


@pytest.mark.parametrize(
    ("value", "text"), [(-9e28, "-9.00e+28"), (12345.678, "12345.68"), (float("nan"), "-"), (1.797e308, "-"), (-0.004, "-0.00")]
)
def test_a_number_is_never_wider_than_it_says_anything(value: float, text: str) -> None:
    assert tables.number(value, 2) == text


@pytest.mark.parametrize("width", [80, 100])
def test_claims_break_between_words_in_a_terminal_and_not_at_all_elsewhere(width: int) -> None:
    def lines(*, terminal: bool) -> list[str]:
        screen = io.StringIO()
        show(results_of(), Console(file=screen, width=width, force_terminal=terminal, color_system=None), verdicts_only=True)
        return screen.getvalue().splitlines()

    (whole,) = lines(terminal=False)
    first, *rest = lines(terminal=True)
    assert rest
    assert all(len(line) <= width and line.startswith(" " * 8) and line[8] != " " for line in rest)
    assert " ".join([first, *(line.strip() for line in rest)]) == whole
