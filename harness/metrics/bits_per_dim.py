"""Tiers B and C: grey levels 0..255 as the data, for models whose own objectives live on different scales (docs/science.md)."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from harness.metrics.bounds import BATCH, View, batches
from harness.metrics.inference import LogProb, log_pmf_of, mean_of
from harness.metrics.memory import parts
from harness.models.vae import VAE
from harness.spec import TrialSpec

BINS = 64
LEVELS = 256
PSEUDO_COUNT = 0.1


def bits_per_dimension(nats: float, pixels: int) -> float:
    """Return -log2 P(x) / D for log P(x) in nats and D pixels; lower is better."""
    return -nats / (pixels * math.log(2))


@torch.no_grad()
def own_levels(spec: TrialSpec, vae: VAE, x: Tensor, v: Tensor) -> View | None:
    """Return tier B: the model's own pmf of grey levels, or None if its likelihood has no such pmf, as its `log_pmf` says.

    Args:
        spec: The trial.
        vae: Its model, of one lane.
        x: The encoder's input, (N, P).
        v: Grey levels 0..255 as floats, (N, P).
    """
    log_pmf, out = log_pmf_of(vae.likelihood), vae.decode(x.new_zeros(1, 1, spec.latent))
    return View(x, v, cast(LogProb, log_pmf)) if log_pmf(v[:1], *out) is not None else None


@dataclass(frozen=True)
class CommonHead:
    """Tier C: a pmf of grey levels that depends on a model by nothing but its mean image m(z).

    It compares mean images and codes on one scale, whatever likelihood a model was trained with; it does not score the model's own
    noise.

    Attributes:
        log_table: log P(v | floor(64 m)) in nats, (64 * 256,), with v varying fastest, from counts on the model's training images
            with one draw z ~ q each, plus 0.1.
    """

    log_table: Tensor

    @classmethod
    def count(
        cls, vae: VAE, mean: Tensor, log_var: Tensor, levels: Tensor, seed: int = 0, *, batch_size: int = BATCH
    ) -> "CommonHead":
        """Count the table on images and return the head.

        Args:
            vae: The model, of one lane.
            mean: Mean of q for each image, (N, Z).
            log_var: Log variance of q for each image, (N, Z).
            levels: Grey levels of the images, uint8 (N, P).
            seed: Of the draws of z.
            batch_size: Images that are drawn for at a time.
        """
        generator, mean_image = torch.Generator().manual_seed(seed), mean_of(vae.likelihood)
        counts = torch.zeros(BINS * LEVELS, dtype=torch.int64)
        with torch.no_grad():
            for batch in batches(len(levels), batch_size):
                center, spread = mean[None, batch], (log_var[None, batch] / 2).exp()
                eps = torch.randn(center.shape, generator=generator, dtype=center.dtype).to(center.device)
                z, v = center + spread * eps, levels[batch]
                for part in parts(vae.decoder, z):
                    image = mean_image(*vae.decode(z[:, part]))[0]
                    counts += torch.bincount(_cell(image, v[part]).flatten(), minlength=BINS * LEVELS).cpu()
        table = counts.view(BINS, LEVELS).double() + PSEUDO_COUNT
        return cls((table / table.sum(1, keepdim=True)).log().flatten().to(mean))

    def log_prob(self, v: Tensor, image: Tensor) -> Tensor:
        """Return log P(v | image) in nats, summed over pixels, of levels v (..., P) and mean images (..., P) on [0, 1]: (...)."""
        cells = _cell(image, v)
        return self.log_table.index_select(0, cells.flatten()).view(cells.shape).sum(-1)  # a third of the time of an index

    def view(self, vae: VAE, x: Tensor, v: Tensor) -> View:
        """Return the view of this tier: levels v (N, P) under this pmf of `vae`, whose encoder gets x (N, P)."""
        mean = mean_of(vae.likelihood)
        return View(x, v, lambda levels, *out: self.log_prob(levels, mean(*out)))


def _cell(image: Tensor, v: Tensor) -> Tensor:
    """Return the index into the flat table of levels v under mean images, elementwise, int32."""
    return (image * BINS).int().clamp_(0, BINS - 1) * LEVELS + v.int()
