"""Bounds on log p(x) by draws from q. Shapes: N images, B a batch of them, L draws, P pixels, Z latents; VAEs here have one lane.

Bounds are in nats per image: summed over pixels and latents, then averaged over images, in float64.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from harness.metrics.memory import encoded, parts
from harness.models.likelihoods import ExponentialFamily
from harness.models.objectives import log_weights
from harness.models.vae import VAE, Pass, kl_per_dimension

BATCH = 1_000
ROWS = 5_000  # decoded at once: draws x images
DRAWS = 100  # draws whose weights are summed before they are stored
LogProb = Callable[..., Tensor]
LADDER = (1, 10, 100, 1_000, 5_000)


@dataclass(frozen=True)
class View:
    """The data and the probability that a bound is about.

    Attributes:
        x: The encoder's input, (N, P).
        target: The data that are scored, (N, P).
        log_prob: `log_prob(target, *out)` returns the log-probability in nats, summed over pixels, given the decoder's outputs.
        exponential_family: `exponential_family(*out)` returns its exponential family form, or None.
    """

    x: Tensor
    target: Tensor
    log_prob: LogProb
    exponential_family: Callable[..., ExponentialFamily | None] = lambda *out: None

    def first(self, n: int) -> "View":
        """Return the same view of the first n images."""
        return View(self.x[:n], self.target[:n], self.log_prob, self.exponential_family)

    def __len__(self) -> int:
        return len(self.x)


def native(vae: VAE, x: Tensor) -> View:
    """Return tier A: a model's inputs x (N, P) under its own likelihood.

    Bounds of this view are comparable between models of the same scale only (`TrialSpec.scale`).
    """
    return View(x, x, vae.likelihood.log_prob, vae.likelihood.exponential_family)


class ElboScore(NamedTuple):
    """An estimate of the ELBO and its terms, in nats per image, averaged over images.

    Attributes:
        elbo: recon - kl.
        recon: E_q[log p(x|z)].
        kl: KL(q(z|x) || p(z)), in closed form.
        standard_error: The Monte Carlo standard error of `elbo`, from the draws of z alone; NaN with one draw.
    """

    elbo: float
    recon: float
    kl: float
    standard_error: float


class Importance(NamedTuple):
    """Importance-weighted bounds of every image.

    Attributes:
        bounds: IW-K in nats by K, (N,) each.
        effective: The effective sample size at the largest K, (N,).
    """

    bounds: dict[int, Tensor]
    effective: Tensor


def batches(n: int, size: int = BATCH) -> Iterator[slice]:
    """Return slices of at most `size` images that cover n images."""
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def score_draws(vae: VAE, view: View, batch: slice, mean: Tensor, log_var: Tensor, eps: Tensor) -> Pass:
    """Decode draws of z for an encoded batch and score them by a view, as many at a time as memory allows.

    Args:
        vae: The model, of one lane.
        view: The data and the probability; only `target` and `log_prob` are used.
        batch: The images of the batch.
        mean: Mean of q, (1, B, Z).
        log_var: Log variance of q, (1, B, Z).
        eps: Draws from N(0, 1), (1, L, B, Z).

    Returns:
        A `Pass` with log_px (1, L, B) in nats.
    """
    _, draws, images, latents = eps.shape
    z = mean[:, None] + (log_var / 2).exp()[:, None] * eps
    target, rows = view.target[batch], z.view(1, draws * images, latents)
    image = torch.arange(images, device=target.device).repeat(draws)  # of each row
    scored = [view.log_prob(target[None, image[part]], *vae.decode(rows[:, part])) for part in parts(vae.decoder, rows)]
    return Pass(mean, log_var, eps, z, torch.cat(scored, 1).view(1, draws, images))


@torch.no_grad()
def estimate_elbo(vae: VAE, view: View, samples: int, seed: int = 0, *, batch_size: int = BATCH) -> ElboScore:
    """Return the ELBO estimated with so many draws of z per image; the draws are the same for every model of equal Z."""
    generator = torch.Generator().manual_seed(seed)
    recon, kl, variance = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    for batch in batches(len(view), batch_size):
        mean, log_var = encoded(vae, view.x[None, batch])
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
def importance(
    vae: VAE,
    view: View,
    most: int,
    seed: int = 0,
    *,
    rows: int = ROWS,
    draws: int = DRAWS,
    ladder: Sequence[int] = LADDER,
) -> Importance:
    """Return IW-K = log 1/K sum_k w_k, w = p(x|z) p(z) / q(z|x), of every image for each K of `ladder` up to `most`.

    E[IW-K] grows with K up to log p(x) (Burda et al., 2016, https://arxiv.org/abs/1509.00519). All K use the same draws: a K below
    the largest is averaged over the groups of K into which they are divided. The effective sample size is (sum w)^2 / sum w^2.

    Args:
        vae: The model, of one lane.
        view: The data and the probability.
        most: The largest K, rounded down to one of `ladder`.
        seed: Of the draws.
        rows: Draws x images that are decoded at a time.
        draws: Draws of an image whose weights are summed before they are stored; a divisor or a multiple of every K.
        ladder: The values of K, rising.
    """
    ks = [k for k in ladder if k <= most]
    most = ks[-1]
    chunk = min(draws, most)
    generator = torch.Generator(view.x.device).manual_seed(seed)
    bounds: dict[int, list[Tensor]] = {k: [] for k in ks}
    effective = []
    for batch in batches(len(view), max(1, rows // chunk)):
        mean, log_var = encoded(vae, view.x[None, batch])
        groups, squares = [], []
        small: dict[int, list[Tensor]] = {k: [] for k in ks if k < chunk}
        for _ in range(most // chunk):
            eps = torch.randn(1, chunk, *mean.shape[1:], generator=generator, device=mean.device, dtype=mean.dtype)
            log_w = log_weights(score_draws(vae, view, batch, mean, log_var, eps))[0].double()
            groups.append(_log_mean(log_w, chunk)[0])
            squares.append(torch.logsumexp(2 * log_w, 0))
            for k, means in small.items():
                means.append(_log_mean(log_w, k).mean(0))
        by_chunk = torch.stack(groups)
        for k in ks:
            per_image = torch.stack(small[k]) if k < chunk else _log_mean(by_chunk, k // chunk)
            bounds[k].append(per_image.mean(0).cpu())
        log_sum = torch.logsumexp(by_chunk, 0) + math.log(chunk)
        effective.append((2 * log_sum - torch.logsumexp(torch.stack(squares), 0)).exp().cpu())
    return Importance({k: torch.cat(found) for k, found in bounds.items()}, torch.cat(effective))


def _log_mean(log_w: Tensor, k: int) -> Tensor:
    """Return the log of the mean weight of each group of k consecutive draws: (L, B) to (L / k, B)."""
    return torch.logsumexp(log_w.view(-1, k, log_w.shape[-1]), 1) - math.log(k)
