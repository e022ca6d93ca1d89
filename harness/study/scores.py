"""Scores: their labels, which direction is better, and which trials they may rank. Torch is not imported here."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from harness.errors import UserError
from harness.spec import TrialSpec


class Score(NamedTuple):
    """A score of a trial.

    Attributes:
        label: its name with the unit.
        better: "lower", "higher", or "" if neither is better.
        digits: the decimals to print.
        tier: A is on the likelihood's own scale and may only be compared within one; B takes a likelihood that is a pmf of grey
            levels; C and D compare any models (docs/science.md).
        most_latents: the number of latents up to which the score is defined; None for any number.
    """

    label: str
    better: str
    digits: int
    tier: Literal["A", "B", "C", "D"] = "D"
    most_latents: int | None = None


SCORES: Mapping[str, Score] = {
    "test/common_bits": Score("common head (bits/dim)", "lower", 3, "C"),
    "test/common_bits_iw": Score("common head, IW-100 (bits/dim)", "lower", 3, "C"),
    "test/common_bits_exact": Score("common head, exact (bits/dim)", "lower", 3, "C", most_latents=2),
    "test/squared_error": Score("squared error", "lower", 2),
    "test/psnr": Score("PSNR (dB)", "higher", 2),
    "test/ssim": Score("SSIM", "higher", 3),
    "test/frechet": Score("Fréchet distance", "lower", 1),
    "test/precision": Score("precision", "higher", 3),
    "test/recall": Score("recall", "higher", 3),
    "test/knn15_accuracy": Score("15-NN accuracy", "higher", 3),
    "test/probe_accuracy": Score("linear probe accuracy", "higher", 3),
    "test/active_units": Score("active units", "higher", 1),
    "test/kl": Score("KL (nats)", "", 2),
    "test/mutual_information": Score("mutual information (nats)", "", 2),
    "test/marginal_kl": Score("marginal KL (nats)", "", 2),
    "validation/dead_units": Score("dead hidden units (share)", "lower", 3),
    "test/own_bits": Score("own likelihood (bits/dim)", "lower", 3, "B"),
    "test/own_bits_iw": Score("own likelihood, IW-100 (bits/dim)", "lower", 3, "B"),
    "test/elbo": Score("ELBO (nats)", "higher", 2, "A"),
    "test/recon": Score("reconstruction (nats)", "higher", 2, "A"),
    "test/iw_100": Score("IW-100 (nats)", "higher", 2, "A"),
    "test/exact_log_px": Score("exact log p(x) (nats)", "higher", 2, "A", most_latents=2),
    "test/inference_gap": Score("inference gap (nats)", "lower", 2, "A", most_latents=2),
    "validation/squared_error": Score("validation squared error", "lower", 2),
    "validation/common_bits": Score("validation common head (bits/dim)", "lower", 3, "C"),
    "elbo/validation": Score("validation ELBO (nats)", "higher", 2, "A"),
    "perf/throughput": Score("throughput of a trial (images/s)", "higher", 0),
    "perf/step_ms": Score("step (ms)", "lower", 2),
    "model/parameters": Score("parameters", "lower", 0),
}


def comparable(metric: str, specs: Mapping[str, TrialSpec], ranking: str) -> None:
    """Raise an error if the tier of a score does not allow it to rank these specs.

    Args:
        metric: the score's key.
        specs: by the name that the message should give each, such as its arm.
        ranking: what ranks them, in words, with which the message begins.

    Raises:
        UserError: the specs are on different scales, have no pmf of grey levels, or have too many latents for the score.
    """
    score = SCORES[metric]
    scales = {arm: str(spec.scale) for arm, spec in specs.items()}
    scales_in_words = ", ".join(f"{arm} is a {scale}" for arm, scale in scales.items())
    latents = max(spec.latent for spec in specs.values())
    defined = {name: s for name, s in SCORES.items() if s.most_latents is None or s.most_latents >= latents}
    always_comparable = [name for name, s in defined.items() if s.better and s.tier in "CD" and name.startswith("test/")]
    alternatives = {tier: ", ".join(name for name in always_comparable if SCORES[name].tier == tier) for tier in "CD"}
    if all(spec.has_grey_pmf for spec in specs.values()):
        alternatives = {"B": "test/own_bits"} | alternatives
    advice = "\n".join(f"tier {tier} would do: {names}" for tier, names in alternatives.items())
    if score.tier == "A" and len(set(scales.values())) > 1:
        raise UserError(f"{ranking}: {metric!r} (tier A) cannot rank across scales ({scales_in_words})\n{advice}")
    without_pmf = [arm for arm, spec in specs.items() if not spec.has_grey_pmf]
    if score.tier == "B" and without_pmf:
        raise UserError(
            f"{ranking}: {metric!r} (tier B) takes a pmf of grey levels, {' and '.join(without_pmf)} has none\n{advice}"
        )
    if metric not in defined:
        raise UserError(f"{ranking}: {metric!r} exists up to {score.most_latents} latents, got {latents}\n{advice}")
