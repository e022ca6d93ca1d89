"""The ELBO of the validation images after every epoch, of all lanes together.

Shapes: S lanes, N images, B a batch of them, P pixels, Z latents.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from harness import metrics
from harness.data import Split
from harness.kernels.matmul import Inference
from harness.metrics.bounds import BATCH, batches
from harness.metrics.inference import inference
from harness.metrics.memory import at_once
from harness.models.likelihoods import Likelihood
from harness.models.vae import VAE, Pass, kl_per_dimension, likelihood_of
from harness.spec import TrialSpec


class Validation:
    """The validation images as inputs of every lane's model, and their ELBO with one draw of z each.

    The draws are the same after every epoch and for all trials of equal Z: those of `harness.metrics.estimate_elbo`, whose
    results it equals to rounding.

    Attributes:
        split: the validation images.
        batch_size: the number of images of a batch of draws, and the most that are scored at a time.
        inputs: the images as model inputs, (N, P), by likelihood: one tensor for all trials that read them alike.
        draws: the noise of z on the device, (N, Z), by Z.
    """

    def __init__(self, split: Split, *, batch_size: int = BATCH) -> None:
        self.split, self.batch_size = split, batch_size
        self.inputs: dict[Likelihood, Tensor] = {}
        self.draws: dict[int, Tensor] = {}

    def score(self, lanes: Sequence[TrialSpec], vae: VAE) -> list[dict[str, float]]:
        """Return ELBO, log p(x|z) and KL of every lane's model, in nats per image, by metric key.

        `lanes` are the trials in the lanes of `vae`.
        """
        inputs = [self._inputs(spec) for spec in lanes]
        if len(lanes) == 1 and inputs[0].device.type == "cpu":  # natively; on a GPU its many small calls would take longer
            with inference(vae):
                alone = metrics.estimate_elbo(vae, metrics.native(vae, inputs[0]), 1, batch_size=self.batch_size)
            return [_terms(alone.recon, alone.kl)]
        alike = all(x is inputs[0] for x in inputs)
        eps = self._eps(lanes[0].latent, inputs[0])
        sums = torch.zeros(2, len(lanes), dtype=torch.float64, device=eps.device)
        with torch.no_grad(), Inference():
            first = [x[None, :1].expand(len(lanes), -1, -1) for x in (eps, inputs[0])]
            size = min(self.batch_size, *map(at_once, (vae.decoder, vae.encoder), first))
            for rows in batches(len(eps), size):
                x = inputs[0][None, rows].expand(len(lanes), -1, -1) if alike else torch.stack([x[rows] for x in inputs])
                sums += _sums(vae(x, eps[None, None, rows].expand(len(lanes), -1, -1, -1)))
        recon, kl = (sums / len(eps)).tolist()
        return [_terms(*of_lane) for of_lane in zip(recon, kl, strict=True)]

    def _inputs(self, spec: TrialSpec) -> Tensor:
        """Return the images as inputs of this trial's model, (N, P)."""
        key = likelihood_of(spec)
        if key not in self.inputs:
            self.inputs[key] = metrics.model_inputs(spec, self.split)
        return self.inputs[key]

    def _eps(self, latents: int, like: Tensor) -> Tensor:
        """Return the noise of z, (N, Z), on the device of `like`."""
        if latents not in self.draws:
            self.draws[latents] = _draws(len(self.split), latents, self.batch_size).to(like)
        return self.draws[latents]


def _terms(recon: float, kl: float) -> dict[str, float]:
    """Return ELBO, log p(x|z) and KL by metric key, given the latter two in nats per image."""
    return {"elbo/validation": recon - kl, "recon/validation": recon, "kl/validation": kl}


def _sums(p: Pass) -> Tensor:
    """Return log p(x|z) and KL of every lane, each summed over a batch in float64, (2, S)."""
    terms = (p.log_px, kl_per_dimension(p.mean, p.log_var))
    return torch.stack([t.sum(tuple(range(1, t.dim())), dtype=torch.float64) for t in terms])


def _draws(n: int, latents: int, batch_size: int) -> Tensor:
    """Return the noise of z for n images, (N, Z), drawn batch by batch from one generator with seed 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.cat([torch.randn(b.stop - b.start, latents, generator=generator) for b in batches(n, batch_size)])
