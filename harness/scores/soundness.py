"""Which numbers are none: those that are not finite, and those of a model that diverged. The one definition of both."""

from collections.abc import Mapping
from typing import NamedTuple

from harness.errors import HarnessError
from harness.scores.rows import LOST_ELBO, OVER_HISTOGRAM
from harness.scores.score import Score

LARGEST = 3.4028234e38  # of float32: what lies beyond has overflowed somewhere; MLflow keeps an infinity as 1.797e308
MOST_NAMED = 3


class NotFiniteError(HarnessError):
    """Raised when a score of a trial is not finite, so that the trial has no result."""


def not_finite(metrics: Mapping[str, float]) -> str:
    """Return which metrics are not finite, with their values, in words; empty if all are.

    A score that a trial does not have is left out; it is never NaN.

    >>> not_finite({"test/elbo": float("nan"), "test/kl": 2.0}), not_finite({"test/kl": 2.0})
    ('test/elbo = nan', '')
    """
    bad = [f"{key} = {value:g}" for key, value in metrics.items() if not abs(value) <= LARGEST]
    return ", ".join(bad[:MOST_NAMED]) + (f" and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else "")


def finite(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics as they are.

    Raises:
        NotFiniteError: one of them is not finite.
    """
    words = not_finite(metrics)
    if words:
        raise NotFiniteError(words)
    return metrics


class Sign(NamedTuple):
    """A score that tells of a model that diverged, where it is above `limit`; `words` say what that means."""

    score: Score
    limit: float
    words: str


# Of honest trials, of all likelihoods, after one step or many epochs, the worst have 0 and 0.03.
SIGNS = (
    Sign(LOST_ELBO, 0.5, "worse than an untrained model"),
    Sign(OVER_HISTOGRAM, 1.0, "codes cost more than they save"),
)


def diverged(metrics: Mapping[str, float]) -> str:
    """Return in words how a trial's scores show that its training diverged; empty if they do not, or are not on record.

    >>> diverged({"diagnostics/lost_elbo": 23.1}), diverged({"diagnostics/lost_elbo": 0.0})
    ('worse than an untrained model: ELBO lost since the start (share of its size and of the pixels) 23.1', '')
    """
    signs = [(sign, metrics[sign.score.key]) for sign in SIGNS if metrics.get(sign.score.key, 0) > sign.limit]
    return "; ".join(f"{sign.words}: {sign.score.label} {value:.3g}" for sign, value in signs)
