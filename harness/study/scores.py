"""Scores: what they are called, which way is better, and which trials they may rank. No torch here."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from harness.errors import UserError
from harness.spec import TrialSpec


class Score(NamedTuple):
    """A score of a trial: its label with unit, which way is better ("" for neither), decimals to print, and its tier.

    Tier A lives on its likelihood's own scale and may only be compared within one; B takes a likelihood that is a pmf of grey
    levels; C and D compare any models (docs/science.md). `most_latents`: it exists up to so many.
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


def comparable(metric: str, specs: Mapping[str, TrialSpec], where: str) -> None:
    """Refuse a ranking of these specs, by the name of each, that the score's tier does not allow."""
    score = SCORES[metric]
    scales = {arm: str(spec.scale) for arm, spec in specs.items()}
    listed = ", ".join(f"{arm} is a {scale}" for arm, scale in scales.items())
    latents = max(spec.latent for spec in specs.values())
    there = {name: s for name, s in SCORES.items() if s.most_latents is None or s.most_latents >= latents}
    fair = [name for name, s in there.items() if s.better and s.tier in "CD" and name.startswith("test/")]
    would_do = {tier: ", ".join(n for n in fair if SCORES[n].tier == tier) for tier in "CD"}
    if all(spec.has_grey_pmf for spec in specs.values()):
        would_do = {"B": "test/own_bits"} | would_do
    advice = "\n".join(f"tier {tier} would do: {names}" for tier, names in would_do.items())
    if score.tier == "A" and len(set(scales.values())) > 1:
        raise UserError(f"{where}: {metric!r} (tier A) cannot rank across scales ({listed})\n{advice}")
    without = [arm for arm, spec in specs.items() if not spec.has_grey_pmf]
    if score.tier == "B" and without:
        raise UserError(f"{where}: {metric!r} (tier B) takes a pmf of grey levels, {' and '.join(without)} has none\n{advice}")
    if metric not in there:
        raise UserError(f"{where}: {metric!r} exists up to {score.most_latents} latents, got {latents}\n{advice}")
