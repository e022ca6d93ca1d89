"""What a trial must be like for some scores. Torch is not imported here."""

from collections.abc import Callable, Mapping

from harness.scores import EXACT_LATENTS
from harness.spec.trial import TrialSpec

# The needs of `harness.scores` that a spec can tell of; it knows nothing of labels, nor of a likelihood's scale of noise.
MEETS: Mapping[str, Callable[[TrialSpec], bool]] = {
    "grey_pmf": lambda spec: spec.has_grey_pmf,
    "exact": lambda spec: spec.latent <= EXACT_LATENTS,
    "deep": lambda spec: spec.evaluation in ("full", "thorough"),
    "held_out": lambda spec: spec.fit_on == "train",
    "epochs": lambda spec: spec.epochs > 1,
    "average": lambda spec: spec.ema_decay > 0,
    "patience": lambda spec: spec.patience > 0,
}
