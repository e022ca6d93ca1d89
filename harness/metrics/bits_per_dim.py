"""Tiers B and C: grey levels 0..255 as the data, for models whose own objectives live on different scales (docs/science.md)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.metrics.bounds import View, batches
from harness.models.vae import VAE
from harness.spec import TrialSpec

BINS = 64
LEVELS = 256
PSEUDO_COUNT = 0.1


def bits_per_dimension(nats: float, pixels: int) -> float:
    """-log2 P(x) / D from log P(x) in nats: lower is better."""
    return -nats / (pixels * math.log(2))


def own_levels(spec: TrialSpec, vae: VAE, x: Tensor, v: Tensor) -> View | None:
    """Tier B: the model's own pmf of grey levels v (N, P) in 0..255, given what it is shown, x. None where it has none."""
    return View(x, v, vae.likelihood.log_pmf) if spec.has_grey_pmf else None  # type: ignore[arg-type]  # None only without one


@dataclass(frozen=True)
class CommonHead:
    """Tier C: one pmf of grey levels for every model, given nothing but its mean image m(z).

    `log_table` (64, 256) holds log P(v | floor(64 m)), counted on the model's training images with one draw z ~ q each, plus 0.1.
    It ranks mean image and code on one scale, whatever the model was trained with; it does not score the model's own noise.
    """

    log_table: Tensor

    @classmethod
    def count(cls, vae: VAE, mean: Tensor, log_var: Tensor, levels: Tensor, seed: int = 0) -> "CommonHead":
        """Count the table on images: mean and log variance of their codes, (N, Z) each, and their levels, uint8 (N, P)."""
        generator = torch.Generator().manual_seed(seed)
        counts = torch.zeros(BINS * LEVELS, dtype=torch.int64)
        with torch.no_grad():
            for batch in batches(len(levels)):
                center, spread = mean[None, batch], (log_var[None, batch] / 2).exp()
                eps = torch.randn(center.shape, generator=generator, dtype=center.dtype).to(center.device)
                image = vae.likelihood.mean(*vae.decode(center + spread * eps))[0]
                counts += torch.bincount(_cell(image, levels[batch]).flatten(), minlength=BINS * LEVELS).cpu()
        table = counts.view(BINS, LEVELS).double() + PSEUDO_COUNT
        return cls((table / table.sum(1, keepdim=True)).log().flatten().to(mean))

    def log_prob(self, v: Tensor, image: Tensor) -> Tensor:
        """log P(v | image) in nats, summed over pixels: levels (..., P) and mean images (..., P) on [0, 1]."""
        return self.log_table[_cell(image, v)].sum(-1)

    def view(self, vae: VAE, x: Tensor, v: Tensor) -> View:
        """The tier's probability of levels v for `vae`, which is shown x."""
        return View(x, v, lambda levels, *out: self.log_prob(levels, vae.likelihood.mean(*out)))


def _cell(image: Tensor, v: Tensor) -> Tensor:
    return (image * BINS).int().clamp_(0, BINS - 1) * LEVELS + v.int()


def histogram_bits(train: Tensor, test: Tensor) -> float:
    """What any model must beat: a histogram of levels per pixel with 1 added to each count, no latent at all.

    uint8 (N, P) each; bits/dim of test.
    """
    pixels = train.shape[1]
    at = torch.arange(pixels, device=train.device) * LEVELS
    counts = torch.bincount((train.long() + at).flatten(), minlength=pixels * LEVELS).view(pixels, LEVELS).double() + 1
    log_p = (counts / counts.sum(1, keepdim=True)).log().flatten()
    return bits_per_dimension(log_p[test.long() + at].sum(1).mean().item(), pixels)
