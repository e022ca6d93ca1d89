"""What a model is shown in an evaluation, and what it makes of it. Shapes: N images, B a batch, P pixels, Z latents."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.data import Split, frozen_noise
from harness.metrics.bounds import batches
from harness.models.vae import VAE
from harness.spec import TrialSpec


@dataclass(frozen=True)
class Encodings:
    """What a model makes of a split: q's mean and log variance (N, Z), and the image decoded at q's mean (N, P)."""

    mean: Tensor
    log_var: Tensor
    image: Tensor


def by_batch(spec: TrialSpec, vae: VAE, split: Split) -> Iterator[Tensor]:
    """A split as `vae` sees it, batch by batch: (B, P) each.

    It is binarised or dequantised once, with noise frozen by the split's name.
    """
    fixed = vae.likelihood.noisy and spec.binarisation != "threshold"
    u = frozen_noise(split) if fixed else None
    for batch in batches(len(split)):
        v = split.levels[batch].float()
        yield vae.likelihood.observe(v, 0.5 if u is None else u[batch])


def model_inputs(spec: TrialSpec, vae: VAE, split: Split) -> Tensor:
    """The whole split as `vae` sees it, (N, P)."""
    return torch.cat(list(by_batch(spec, vae, split)))


@torch.no_grad()
def encodings(vae: VAE, x: Tensor) -> Encodings:
    """Encode x (N, P) and decode the mean of q."""
    parts = []
    for batch in batches(len(x)):
        mean, log_var = vae.encoder(x[None, batch])
        parts.append((mean[0], log_var[0], vae.likelihood.mean(*vae.decode(mean))[0]))
    return Encodings(*(torch.cat(p) for p in zip(*parts, strict=True)))


@torch.no_grad()
def encode(spec: TrialSpec, vae: VAE, split: Split) -> tuple[Tensor, Tensor]:
    """Mean and log variance of q for a split, observed batch by batch: (N, Z) each."""
    parts = [vae.encoder(x[None]) for x in by_batch(spec, vae, split)]
    mean, log_var = (torch.cat([p[i][0] for p in parts]) for i in range(2))
    return mean, log_var


@torch.no_grad()
def prior_samples(vae: VAE, n: int, latent: int, seed: int = 0) -> Tensor:
    """Mean images of n draws from the prior, the same draws for every trial: (n, P) on [0, 1]."""
    where = next(vae.parameters())
    z = torch.randn(n, latent, generator=torch.Generator().manual_seed(seed), dtype=where.dtype).to(where.device)
    return torch.cat([vae.likelihood.mean(*vae.decode(z[None, batch]))[0] for batch in batches(n)]).clamp(0, 1)
