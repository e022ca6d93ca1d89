"""What is no number fails, and what no honest trial reaches has a name."""

import math

import pytest

from harness.scores import NotFiniteError, diverged, finite, not_finite
from harness.scores.soundness import LARGEST, SIGNS, Sign


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.797e308, -4e38])
def test_what_is_not_finite_is_named_with_its_value(bad: float) -> None:
    assert not_finite({"test/kl": 2.0, "test/elbo": bad}) == f"test/elbo = {bad:g}"
    with pytest.raises(NotFiniteError, match="test/elbo"):
        finite({"test/elbo": bad})


def test_numbers_are_left_as_they_are() -> None:
    scores = {"test/elbo": -9e28, "test/kl": 0.0, "largest": LARGEST, "perf/compiled": 1}
    assert finite(scores) is scores


def test_of_many_a_few_are_named() -> None:
    assert not_finite({f"a/{i}": math.nan for i in range(5)}) == "a/0 = nan, a/1 = nan, a/2 = nan and 2 more"


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.score.key)
def test_each_sign_of_divergence_is_enough(sign: Sign) -> None:
    key = sign.score.key
    assert diverged({key: sign.limit}) == ""
    assert diverged({key: 2 * sign.limit}) == f"{sign.words}: {sign.score.label} {2 * sign.limit:.3g}"


def test_older_runs_without_these_scores_are_not_judged() -> None:
    assert diverged({"test/kl": 2520.0}) == ""
