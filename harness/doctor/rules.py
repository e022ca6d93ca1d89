"""What a score may say against a trial: the rules, and the findings that they make."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from harness.scores import Score, rows
from harness.spec import TrialSpec

OFF_BETA = 1.5  # factor by which an effective beta may differ from 1
Severity = Literal["wrong", "careful"]


@dataclass(frozen=True)
class Finding:
    """Something that is the matter with an arm or with a whole study, and what to do about it.

    Attributes:
        severity: `wrong` if the numbers do not mean what they claim; `careful` if they do, but are easily misread.
        arm: the arm, or None for the whole study.
        what: the finding in words.
        advice: what to do about it.
    """

    severity: Severity
    arm: str | None
    what: str
    advice: str


class Rule(NamedTuple):
    """A score of a trial and the values of it that are a finding.

    Attributes:
        score: the score.
        fires: returns True for a value that is a finding; NaN never is.
        severity, what, advice: those of the finding.
        applies: returns True for the specs that the rule is for.
    """

    score: Score
    fires: Callable[[float], bool]
    severity: Severity
    what: str
    advice: str
    applies: Callable[[TrialSpec], bool] = lambda _: True


COLLAPSED = "the decoder ignores the code: lower beta or sigma, warm the KL up (kl_warmup) or allow it some nats (free_bits)"

NOT_CONVERGED = "not converged, ELBO gained over the last fifth of the epochs (nats)"


def collapse_is_not_intended(spec: TrialSpec) -> bool:
    """Return whether a posterior collapse would be a fault: a beta above 1 asks for it."""
    return spec.beta <= 1


RULES = (
    Rule(rows.KL, lambda kl: kl < 0.1, "wrong", "posterior collapse, KL below 0.1 nats", COLLAPSED, collapse_is_not_intended),
    Rule(rows.ACTIVE_UNITS, lambda n: n == 0, "wrong", "posterior collapse, no active unit", COLLAPSED, collapse_is_not_intended),
    Rule(
        rows.NAN_COUNT,
        lambda count: count > 0,
        "wrong",
        "weights that are not finite",
        "discard these scores and lower the learning rate",
    ),
    Rule(
        rows.SCALE_AT_FLOOR,
        lambda share: share > 0.01,
        "careful",
        "sigma on its floor (share of pixels)",
        f"the floor sets this density's height: do not rank by its ELBO, take {rows.OWN_BITS.key} or {rows.COMMON_BITS.key}",
    ),
    Rule(
        rows.EFFECTIVE_BETA,
        lambda beta: not 1 / OFF_BETA <= beta <= OFF_BETA,
        "careful",
        "effective beta away from 1",
        "its noise does not fit the residual, so the KL weighs that many times what it does where the noise fits: learn sigma "
        "(gaussian_shared), set it to the residual's, or read the arm as a beta-VAE",
        applies=lambda spec: spec.beta == 1,
    ),
    Rule(
        rows.IW_EFFECTIVE_SAMPLES,
        lambda samples: samples < 10,
        "careful",
        "few effective importance samples",
        f"importance sampling misses the posterior and its bound is loose: take {rows.EXACT_LOG_PX.key} up to two latents, more "
        "draws (evaluation full or thorough) beyond",
    ),
    Rule(
        rows.EXACT_RESOLVED,
        lambda within: within < 1,
        "careful",
        "exact likelihood not resolved and left out, its quadrature within the budget (1 or 0)",
        f"the decoder is too rugged over the latent space, as after a training that diverged: take {rows.ELBO.key} or IW-100",
    ),
    Rule(
        rows.EXACT_RESOLUTION,
        lambda nats: nats > 0.01,
        "careful",
        "exact likelihood not resolved, difference to cells twice as wide (nats)",
        f"do not quote {rows.EXACT_LOG_PX.key} to more digits than that",
    ),
    Rule(
        rows.LATE_GAIN,
        lambda nats: nats > 0.5,
        "careful",
        NOT_CONVERGED,
        "train for more epochs, or claim a speed of learning instead of an end result",
        applies=lambda spec: not spec.patience,
    ),
    Rule(
        rows.LATE_GAIN,
        lambda nats: nats > 0.5,
        "careful",
        NOT_CONVERGED,
        "allow a longer patience if that ended it, else more epochs; or claim a speed of learning instead of an end result",
        applies=lambda spec: spec.patience > 0,
    ),
    Rule(
        rows.LATE_GAIN,
        lambda nats: nats < -0.5,
        "careful",
        "overfitting, ELBO of validation lost over the last fifth of the epochs (nats)",
        "end with the best epoch instead of the last (patience)",
        applies=lambda spec: spec.fit_on == "train",
    ),
    Rule(
        rows.DEAD_UNITS,
        lambda share: share > 0.05,
        "careful",
        "dead hidden units (share)",
        "lower the learning rate or take an activation that does not die (elu)",
    ),
)
