"""Signs that training made a model worse than none. Shapes: N images, P values of an image; VAEs here have one lane."""

from harness import catalog
from harness.data import Data
from harness.metrics.bits_per_dim import bits_per_dimension
from harness.metrics.bounds import estimate_elbo, native
from harness.metrics.diagnostics import noise
from harness.metrics.histogram import level_bits
from harness.metrics.inference import inference
from harness.metrics.inputs import model_inputs
from harness.models.vae import VAE
from harness.scores.rows import EFFECTIVE_BETA, LOST_ELBO, OVER_HISTOGRAM
from harness.spec import TrialSpec

IMAGES = 1_000  # the first ones of a split, which these scores are of


def divergence(spec: TrialSpec, vae: VAE, untrained: VAE, data: Data, common_bits: float) -> dict[str, float]:
    """Return what tells of a training that diverged, by metric key, on the images that the trial is scored on.

    The KL counts as much as the trial itself lets it: by beta up to 1, beyond its free bits; not at all under an objective of the
    user's own, which may weigh it otherwise.

    - `diagnostics/lost_elbo`: max(0, ELBO of the untrained model - ELBO) / (|ELBO of the untrained model| + P), in nats by nats and
      pixels.
    - `diagnostics/over_histogram`: the common head's bits/dim above those of one histogram of levels, all pixels and channels
      together, counted on training images, which takes no code at all. The KL counts by the effective beta too, where that is
      lower.

    Args:
        spec: The trial.
        vae: Its model.
        untrained: The same model with its initial weights.
        data: The data set, on the models' device.
        common_bits: The common head's bits/dim on the images that the trial is scored on.
    """
    split = data.validation if spec.evaluation == "validation" else data.test
    with inference(vae, untrained):
        x = model_inputs(spec, split)[:IMAGES]
        pixels = x.shape[1]
        before, after = (estimate_elbo(model, native(model, x), 1) for model in (untrained, vae))
        weight = min(1.0, spec.beta) if catalog.entry("objective", spec.objective) is not None else 0.0
        paid = max(0.0, after.kl - spec.free_bits * spec.latent)
        lost = max(0.0, before.elbo - (after.recon - weight * paid))
        effective = noise(spec, vae, x).get(EFFECTIVE_BETA.key, weight)
        cheap = after.kl - paid * min(weight, effective)  # nats of the KL that cost the trial nothing
        histogram = level_bits(data.fit_on(spec.fit_on).levels[:IMAGES], split.levels[:IMAGES])
        over = common_bits + bits_per_dimension(cheap, pixels) - histogram
    return {LOST_ELBO.key: lost / (abs(before.elbo) + pixels), OVER_HISTOGRAM.key: over}
