"""Bounds on log p(x) by draws from q. Shapes: N images, B a batch of them, L draws, P pixels, Z latents; VAEs here have one lane.

Nats per image: summed over pixels and latents, averaged over images last, in float64.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from harness.models.likelihoods import ExponentialFamily
from harness.models.objectives import log_weights
from harness.models.vae import VAE, Pass, kl_per_dimension

BATCH = 1_000
ROWS = 5_000  # decoded at once: draws x images
DRAWS = 100  # draws that are grouped before anything is kept of them
LADDER = (1, 10, 100, 1_000, 5_000)


@dataclass(frozen=True)
class View:
    """Which probability of which data a bound is about: the encoder's input x (N, P), and target (N, P) under log_prob.

    `log_prob(target, *out)` gives nats, summed over pixels; `product(*out)` its exponential family form, or None.
    """

    x: Tensor
    target: Tensor
    log_prob: Callable[..., Tensor]
    product: Callable[..., ExponentialFamily | None] = lambda *out: None

    def first(self, n: int) -> "View":
        """The same of the first n images."""
        return View(self.x[:n], self.target[:n], self.log_prob, self.product)

    def __len__(self) -> int:
        return len(self.x)


def native(vae: VAE, x: Tensor) -> View:
    """A model's own likelihood of what it is shown: tier A, for comparisons within one scale."""
    return View(x, x, vae.likelihood.log_prob, vae.likelihood.product)


class ElboScore(NamedTuple):
    """Means over images, in nats, and the Monte Carlo standard error of `elbo` (from the draws of z alone)."""

    elbo: float
    recon: float
    kl: float
    standard_error: float


class Importance(NamedTuple):
    """IW-K bounds of every image by K, (N,) each, and the effective sample size of the largest K, (N,)."""

    bounds: dict[int, Tensor]
    effective: Tensor


def batches(n: int, size: int | None = None) -> Iterator[slice]:
    """Slices that cover n images."""
    size = size or BATCH
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def score_draws(vae: VAE, view: View, batch: slice, mean: Tensor, log_var: Tensor, eps: Tensor) -> Pass:
    """Decode draws eps (1, L, B, Z) of a batch that is encoded already, and score them by the view."""
    _, draws, images, latents = eps.shape
    z = mean[:, None] + (log_var / 2).exp()[:, None] * eps
    target = view.target[None, batch].repeat(1, draws, 1)
    log_px = view.log_prob(target, *vae.decode(z.view(1, draws * images, latents)))
    return Pass(mean, log_var, eps, z, log_px.view(1, draws, images))


@torch.no_grad()
def estimate_elbo(vae: VAE, view: View, samples: int, seed: int = 0) -> ElboScore:
    """The ELBO with `samples` draws of z per image; the same draws for every model of equal Z."""
    generator = torch.Generator().manual_seed(seed)
    recon, kl, variance = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    for batch in batches(len(view)):
        mean, log_var = vae.encoder(view.x[None, batch])
        kl += kl_per_dimension(mean, log_var).sum(dtype=torch.float64).cpu()
        draws = []
        for _ in range(samples):
            eps = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
            draws.append(score_draws(vae, view, batch, mean, log_var, eps[:, None]).log_px[0, 0])
        log_px = torch.stack(draws).double()
        recon += log_px.mean(0).sum().cpu()
        variance += log_px.var(0).sum().cpu() / samples if samples > 1 else torch.nan
    n = len(view)
    return ElboScore(((recon - kl) / n).item(), (recon / n).item(), (kl / n).item(), (variance.sqrt() / n).item())


@torch.no_grad()
def importance(vae: VAE, view: View, most: int, seed: int = 0) -> Importance:
    """IW-K = log 1/K sum_k w_k, w = p(x|z) p(z) / q(z|x), for K of the ladder up to `most`, all from the same draws.

    E[IW-K] grows with K up to log p(x) (Burda et al., 2016, https://arxiv.org/abs/1509.00519). A K below `most` is averaged over
    its most/K groups. Effective sample size: (sum w)^2 / sum w^2.
    """
    ks = [k for k in LADDER if k <= most]
    most = ks[-1]
    chunk = min(DRAWS, most)
    generator = torch.Generator(view.x.device).manual_seed(seed)
    bounds: dict[int, list[Tensor]] = {k: [] for k in ks}
    effective = []
    for batch in batches(len(view), max(1, ROWS // chunk)):
        mean, log_var = vae.encoder(view.x[None, batch])
        groups, squares = [], []
        small: dict[int, list[Tensor]] = {k: [] for k in ks if k < chunk}
        for _ in range(most // chunk):
            eps = torch.randn(1, chunk, *mean.shape[1:], generator=generator, device=mean.device, dtype=mean.dtype)
            log_w = log_weights(score_draws(vae, view, batch, mean, log_var, eps))[0].double()
            groups.append(_log_mean(log_w, chunk)[0])
            squares.append(torch.logsumexp(2 * log_w, 0))
            for k, parts in small.items():
                parts.append(_log_mean(log_w, k).mean(0))
        by_chunk = torch.stack(groups)
        for k in ks:
            per_image = torch.stack(small[k]) if k < chunk else _log_mean(by_chunk, k // chunk)
            bounds[k].append(per_image.mean(0).cpu())
        log_sum = torch.logsumexp(by_chunk, 0) + math.log(chunk)
        effective.append((2 * log_sum - torch.logsumexp(torch.stack(squares), 0)).exp().cpu())
    return Importance({k: torch.cat(parts) for k, parts in bounds.items()}, torch.cat(effective))


def _log_mean(log_w: Tensor, k: int) -> Tensor:
    """Log of the mean over groups of k draws: (L, B) to (L / k, B)."""
    return torch.logsumexp(log_w.view(-1, k, log_w.shape[-1]), 1) - math.log(k)
