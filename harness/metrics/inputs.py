"""A model's inputs in an evaluation, its encodings and its prior samples. Shapes: N images, B a batch, P pixels, Z latents."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.data import Split, frozen_noise
from harness.metrics.bounds import BATCH, batches
from harness.metrics.memory import encoded, mean_images
from harness.models.vae import VAE, likelihood_of
from harness.spec import TrialSpec


@dataclass(frozen=True)
class Encodings:
    """A model's encodings of N images.

    Attributes:
        mean: Mean of q, (N, Z).
        log_var: Log variance of q, (N, Z).
        image: The mean image decoded at q's mean, (N, P) on [0, 1].
    """

    mean: Tensor
    log_var: Tensor
    image: Tensor


def by_batch(spec: TrialSpec, split: Split) -> Iterator[Tensor]:
    """Yield a split as the model sees it, batch by batch, (B, P) each.

    A model that binarises or dequantises by noise gets the split's own (`harness.data.frozen_noise`).
    """
    likelihood = likelihood_of(spec)
    u = None if likelihood.noise == "none" else frozen_noise(split)
    for batch in batches(len(split)):
        v = split.levels[batch].float()
        yield likelihood.observe(v, 0.5 if u is None else u[batch])


def model_inputs(spec: TrialSpec, split: Split) -> Tensor:
    """Return the whole split as the model sees it, (N, P); see `by_batch`."""
    return torch.cat(list(by_batch(spec, split)))


@torch.no_grad()
def encodings(vae: VAE, x: Tensor, *, batch_size: int = BATCH) -> Encodings:
    """Encode x (N, P), decode the mean of q, and return both; so many images at a time."""
    parts = []
    for batch in batches(len(x), batch_size):
        mean, log_var = encoded(vae, x[None, batch])
        parts.append((mean[0], log_var[0], mean_images(vae, mean)))
    return Encodings(*(torch.cat(p) for p in zip(*parts, strict=True)))


@torch.no_grad()
def encode(spec: TrialSpec, vae: VAE, split: Split) -> tuple[Tensor, Tensor]:
    """Return mean and log variance of q for a split, (N, Z) each, without holding the model's inputs for all of it."""
    parts = [encoded(vae, x[None]) for x in by_batch(spec, split)]
    mean, log_var = (torch.cat([p[i][0] for p in parts]) for i in range(2))
    return mean, log_var


@torch.no_grad()
def prior_samples(vae: VAE, n: int, latent: int, seed: int = 0) -> Tensor:
    """Return the mean images of n draws from the prior, (n, P) on [0, 1]; the draws are the same for every trial of equal Z."""
    like = next(vae.parameters())
    z = torch.randn(n, latent, generator=torch.Generator().manual_seed(seed), dtype=like.dtype).to(like.device)
    return torch.cat([mean_images(vae, z[None, batch]) for batch in batches(n)]).clamp(0, 1)
