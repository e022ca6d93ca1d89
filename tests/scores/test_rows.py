"""Every score has one row: what trials bring, what the pages list, and what filters over rows give a study of its own scores."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from harness import paths
from harness.errors import UserError
from harness.metrics.bounds import LADDER
from harness.scores import CODES, IMAGES, NEEDS, SAMPLES, SCORES, Score, compared, costs, in_groups, on_test, qualities, row_of
from harness.scores.rows import ROWS
from harness.spec import DATA_NEEDS, MEETS, TrialSpec
from harness.study import Ablation, Budget, Constraint, Hypothesis, OneOf, Real, Search, SearchBudget
from harness.study.scores import lacking


def nothing(trained: Any) -> Mapping[str, float]:
    return {}


FID = Score(key="test/fid", label="FID", better="lower", digits=1, compute=nothing)
SMOOTH = Score(key="validation/smooth", label="smoothness", better="higher", group="How smooth", compute=nothing)
ENERGY = Score(key="perf/energy_j", label="energy (J)", better="lower", group="Cost", compute=nothing)
OWN = SCORES | {row.key: row for row in (FID, SMOOTH, ENERGY)}


def test_a_key_has_one_row_and_its_needs_are_known() -> None:
    assert len(SCORES) == len(ROWS)
    assert {need for row in ROWS for need in row.needs} == NEEDS.keys()
    assert NEEDS.keys() > MEETS.keys() | DATA_NEEDS.keys()
    assert not MEETS.keys() & DATA_NEEDS.keys()
    assert all(row.label and row.better in ("lower", "higher", "") and row.tier in "ABCD" for row in ROWS)
    assert len({row.label for row in ROWS}) == len(ROWS)


def test_ladder_and_families_have_rows() -> None:
    assert all(f"test/iw_{k}" in SCORES for k in LADDER[1:])
    assert row_of("kl_per_latent/07", SCORES) is SCORES["kl_per_latent/"]
    assert row_of("dead_units/encoder_1", SCORES) is SCORES["dead_units/"]
    assert row_of("test/elbo", SCORES) is SCORES["test/elbo"]
    assert row_of("test/nothing", SCORES) is None


@pytest.mark.parametrize("name", ["metrics", "science", "faq"])
def test_pages_name_scores_that_there_are(name: str) -> None:
    """That docs/metrics.md has all of them: tests/test_pages.py."""
    page = (paths.PROJECT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+/[a-z0-9_/]*)`", page))
    assert named & SCORES.keys()
    assert not {key for key in named if row_of(key, SCORES) is None and key.split("/")[0] in {k.split("/")[0] for k in SCORES}}


def test_a_search_selects_by_validation_and_weighs_costs() -> None:
    assert [row.key for row in qualities(SCORES)] == [
        *("elbo/validation", "validation/squared_error", "validation/common_bits"),
        *("ema/validation/elbo", "ema/validation/squared_error", "ema/validation/common_bits"),
    ]
    assert [row.key for row in costs(SCORES)] == ["perf/throughput", "perf/step_ms", "model/parameters"]
    tested = {row.key: on_test(row, SCORES).key for row in qualities(SCORES)}
    assert tested == {
        "elbo/validation": "test/elbo",
        "validation/squared_error": "test/squared_error",
        "validation/common_bits": "test/common_bits",
        "ema/validation/elbo": "ema/test/elbo",
        "ema/validation/squared_error": "ema/test/squared_error",
        "ema/validation/common_bits": "ema/test/common_bits",
    }


def test_a_reason_names_what_a_trial_does_not_meet() -> None:
    spec = TrialSpec(latent=3, fit_on="train+validation")
    assert lacking(SCORES["test/exact_log_px"], spec) == "takes at most 2 latents"
    assert "fit_on='train'" in lacking(SCORES["validation/dead_units"], spec)
    assert lacking(SCORES["test/knn15_accuracy"], spec) == "takes labels of 2 to 1,000 classes and at least 15 training images"
    assert lacking(SCORES["test/common_bits_exact"], TrialSpec(evaluation="full")) == ""
    assert lacking(SCORES["test/squared_error"], spec) == ""


def test_scores_of_a_study_are_shown_beside_the_built_in_ones() -> None:
    sections = compared(OWN)
    assert list(sections) == [IMAGES, SAMPLES, CODES, FID.group, "How smooth"]
    assert sections[FID.group] == [FID]
    assert sections["How smooth"] == [SMOOTH]
    assert in_groups(OWN, FID.group) == [FID]
    assert FID.key not in SCORES


def test_an_ablation_may_rank_by_a_score_of_its_own() -> None:
    values: dict = {
        "base": TrialSpec(dataset="digits"),
        "arms": {"bce": {}, "mse": {"likelihood": "mse"}},
        "budgets": {"default": Budget(epochs=1, seeds=[0])},
        "hypotheses": (Hypothesis(better="bce", worse="mse", metric=FID.key),),
    }
    study = Ablation(**values, objective=SMOOTH.key, metrics=(FID, SMOOTH, ENERGY))
    assert f"`{FID.key}`" in study.note("default")
    with pytest.raises(UserError, match="unknown score 'test/fid'"):
        Ablation(**values)


def test_a_search_may_go_by_scores_of_its_own() -> None:
    values: dict = {
        "base": TrialSpec(dataset="digits"),
        "space": {"learning_rate": Real(1e-4, 1e-2, log=True)},
        "objectives": (SMOOTH.key, ENERGY.key),
        "constraints": (Constraint(score=ENERGY.key, at_most=5),),
        "budgets": {"default": SearchBudget(trials=2, epochs=1)},
    }
    search = Search(**values, metrics=(FID, SMOOTH, ENERGY))
    assert search.quality is SMOOTH
    assert search.timed
    assert "energy (J) of at most 5" in search.constraints_in_words
    judged = search.judged("default", {"tuned": TrialSpec(dataset="digits", learning_rate=1e-3)})
    assert (judged.objective, judged.hypotheses[0].metric) == (SMOOTH.key, SMOOTH.key)  # it has no twin on the test set
    with pytest.raises(UserError, match="the test set must not select"):
        Search(**values | {"objectives": (FID.key,), "constraints": ()}, metrics=(FID, SMOOTH, ENERGY))
    with pytest.raises(UserError, match="unknown objective 'validation/smooth'"):
        Search(**values)


def test_what_a_study_varies() -> None:
    study = Ablation(
        base=TrialSpec(),
        arms={"a": {}, "b": {"latent": 3, "beta": 2.0}, "c": {"beta": 3.0}},
        budgets={"default": Budget(epochs=1, seeds=[0])},
    )
    assert study.varied == ("latent", "beta")


def test_the_score_of_an_average_takes_one_in_every_arm() -> None:
    values: dict = {
        "base": TrialSpec(dataset="digits", ema_decay=0.99),
        "arms": {"both": {}, "none": {"ema_decay": 0}},
        "budgets": {"default": Budget(epochs=1, seeds=[0])},
    }
    with pytest.raises(UserError, match=r"takes an average of the weights \(ema_decay\), none has none"):
        Ablation(**values, hypotheses=(Hypothesis(better="both", worse="none", metric="ema/test/squared_error"),))
    space: dict = {"space": {"ema_decay": OneOf((0.0, 0.99))}, "budgets": {"default": SearchBudget(trials=2, epochs=1)}}
    with pytest.raises(UserError, match=r"takes an average of the weights \(ema_decay\)"):
        Search(base=values["base"], objectives=("ema/validation/squared_error",), **space)
    space["space"] = {"ema_decay": OneOf((0.9, 0.99))}
    assert Search(base=values["base"], objectives=("ema/validation/elbo",), **space).quality.images == "validation"
