"""What a score may say against a trial: the rules, and the findings that they make."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from harness import catalog
from harness.scores import Score, rows
from harness.spec import TrialSpec

LEAST_KL = 0.1  # nats: below it the decoder learns nothing from the code
OFF_BETA = 1.5  # factor by which an effective beta may differ from 1
Severity = Literal["wrong", "careful", "note"]


@dataclass(frozen=True)
class Finding:
    """Something that is the matter with an arm or with a whole study, and what to do about it.

    Attributes:
        severity: `wrong` if the numbers do not mean what they claim; `careful` if they do, but are easily misread; `note` if it is
            good to know and nothing is the matter.
        arm: the arm, or None for the whole study.
        what: the finding in words.
        advice: what to do about it.
    """

    severity: Severity
    arm: str | None
    what: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """What advice depends on, so that it advises nothing that is done.

    Attributes:
        spec: a trial of the arm.
        others: a trial of every other arm with results, by arm.
        longer: what to do for more epochs, in words.
        scores: those that every finished run of the arm has.
    """

    spec: TrialSpec
    others: Mapping[str, TrialSpec]
    longer: str
    scores: Collection[str] = ()


class Rule(NamedTuple):
    """A score of a trial and the values of it that are a finding.

    Attributes:
        score: the score.
        fires: returns True for a value that is a finding; NaN never is.
        severity, what: those of the finding.
        advice: returns that of the finding.
        applies: returns True for the specs that the rule is for.
    """

    score: Score
    fires: Callable[[float], bool]
    severity: Severity
    what: str
    advice: Callable[[Case], str]
    applies: Callable[[TrialSpec], bool] = lambda _: True


DYING = ("relu",)  # activations whose units may stop to learn
LEARNS_SIGMA = "gaussian_shared"


def _has_collapsed(spec: TrialSpec) -> bool:
    """Return whether a code that is not used is a posterior collapse that nobody asked for, as a beta above 1 does."""
    return spec.beta <= 1 and not _is_early(spec)


def _is_early(spec: TrialSpec) -> bool:
    """Return whether a code that is not used may be used after more training."""
    return spec.beta <= 1 and spec.epochs == 1


def _collapsed(case: Case) -> str:
    """Return what to do about a posterior collapse."""
    spec = case.spec
    ways = ["lower beta" if spec.likelihood_args.get("sigma") is None else "lower beta or sigma"]
    ways.append("warm the KL up for longer (kl_warmup)" if spec.kl_warmup else "warm the KL up (kl_warmup)")
    ways.append("allow it more nats (free_bits)" if spec.free_bits else "allow it some nats (free_bits)")
    return f"the decoder ignores the code: {', '.join(ways[:-1])} or {ways[-1]}"


def _not_learned(case: Case) -> str:
    """Return what to do about a code that is not used after one epoch."""
    return f"one epoch of a small data set is too few steps to tell: {case.longer}"


def _not_finite(case: Case) -> str:
    """Return what to do about weights that are not finite."""
    return "discard these scores and lower the learning rate"


def _on_the_floor(case: Case) -> str:
    """Return what to do about a sigma on its floor."""
    return f"the floor sets this density's height: do not rank by its ELBO, take {rows.OWN_BITS.key} or {rows.COMMON_BITS.key}"


def _off_beta(case: Case) -> str:
    """Return what to do about an effective beta away from 1."""
    learning = [arm for arm, spec in case.others.items() if spec.likelihood == LEARNS_SIGMA]
    ways = f"compare it with {learning[0]}, which learns sigma" if learning else f"learn sigma ({LEARNS_SIGMA})"
    return (
        "its noise does not fit the residual, so the KL weighs that many times what it does where the noise fits: "
        f"{ways}, set sigma to the residual's, or read the arm as a beta-VAE"
    )


def _few_samples(case: Case) -> str:
    """Return what to do where importance sampling misses the posterior."""
    loose = "importance sampling misses the posterior and its bound is loose"
    if rows.EXACT_LOG_PX.key in case.scores:
        return f"{loose}: take {rows.EXACT_LOG_PX.key}, which is integrated"
    depths = list(catalog.EVALUATIONS)
    deeper = depths[depths.index(case.spec.evaluation) + 1 :] if case.spec.evaluation in depths else []
    return f"{loose}: more draws, with evaluation {' or '.join(deeper)}" if deeper else f"{loose}: quote it as a bound"


def _not_resolved(case: Case) -> str:
    """Return what to do where the quadrature ran out of its budget."""
    return f"the decoder is too rugged over the latent space, as after a training that diverged: take {rows.ELBO.key} or IW-100"


def _coarse(case: Case) -> str:
    """Return what to do where cells twice as wide give another result."""
    return f"do not quote {rows.EXACT_LOG_PX.key} to more digits than that"


def _not_converged(case: Case) -> str:
    """Return what to do about a training that ended while it gained."""
    patience = "allow a longer patience if that ended it, else " if case.spec.patience else ""
    return f"{patience}{case.longer}; or claim a speed of learning instead of an end result"


def _overfitting(case: Case) -> str:
    """Return what to do about a training that lost at its end."""
    return "end with the best epoch instead of the last (patience)"


def _dead(case: Case) -> str:
    """Return what to do about dead hidden units."""
    living = [arm for arm, spec in case.others.items() if spec.activation not in DYING]
    if case.spec.activation not in DYING:
        return "lower the learning rate"
    if living:
        return f"lower the learning rate, or take an activation that does not die, as {living[0]} does"
    return "lower the learning rate or take an activation that does not die (elu)"


RULES = (
    Rule(rows.KL, lambda kl: kl < LEAST_KL, "wrong", "posterior collapse, KL below 0.1 nats", _collapsed, _has_collapsed),
    Rule(rows.ACTIVE_UNITS, lambda n: n == 0, "wrong", "posterior collapse, no active unit", _collapsed, _has_collapsed),
    Rule(
        rows.KL,
        lambda kl: kl < LEAST_KL,
        "careful",
        "the code is not used yet, or the posterior has collapsed, KL below 0.1 nats",
        _not_learned,
        applies=_is_early,
    ),
    Rule(
        rows.NAN_COUNT,
        lambda count: count > 0,
        "wrong",
        "weights that are not finite",
        _not_finite,
    ),
    Rule(
        rows.SCALE_AT_FLOOR,
        lambda share: share > 0.01,
        "careful",
        "sigma on its floor (share of pixels)",
        _on_the_floor,
    ),
    Rule(
        rows.EFFECTIVE_BETA,
        lambda beta: not 1 / OFF_BETA <= beta <= OFF_BETA,
        "careful",
        "effective beta away from 1",
        _off_beta,
        applies=lambda spec: spec.beta == 1,
    ),
    Rule(
        rows.IW_EFFECTIVE_SAMPLES,
        lambda samples: samples < 10,
        "careful",
        "few effective importance samples",
        _few_samples,
    ),
    Rule(
        rows.EXACT_RESOLVED,
        lambda within: within < 1,
        "careful",
        "exact likelihood not resolved and left out, its quadrature within the budget (1 or 0)",
        _not_resolved,
    ),
    Rule(
        rows.EXACT_RESOLUTION,
        lambda nats: nats > 0.01,
        "careful",
        "exact likelihood not resolved, difference to cells twice as wide (nats)",
        _coarse,
    ),
    Rule(
        rows.LATE_GAIN,
        lambda nats: nats > 0.5,
        "careful",
        "not converged, ELBO gained over the last fifth of the epochs (nats)",
        _not_converged,
    ),
    Rule(
        rows.LATE_GAIN,
        lambda nats: nats < -0.5,
        "careful",
        "overfitting, ELBO of validation lost over the last fifth of the epochs (nats)",
        _overfitting,
        applies=lambda spec: spec.fit_on == "train" and not spec.patience,
    ),
    Rule(
        rows.DEAD_UNITS,
        lambda share: share > 0.05,
        "careful",
        "dead hidden units (share)",
        _dead,
    ),
)
