"""Bounds on log p(x) by draws from q. Shapes: N images, B a batch of them, L draws, P pixels, Z latents; VAEs here have one lane.

Bounds are in nats per image: summed over pixels and latents, then averaged over images, in float64.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.metrics.inference import LogProb, log_prob_of
from harness.metrics.memory import at_once, encoded
from harness.models.likelihoods import ExponentialFamily
from harness.models.objectives import log_weights
from harness.models.vae import VAE, Pass, kl_per_dimension

BATCH = 1_000
ROWS = 5_000  # decoded at once: draws x images
DRAWS = 100  # draws whose weights are summed before they are stored
LADDER = (1, 10, 100, 1_000, 5_000)


@dataclass(frozen=True)
class View:
    """The data and the probability that a bound is about.

    Attributes:
        x: The encoder's input, (N, P).
        target: The data that are scored, (N, P).
        log_prob: `log_prob(target, *out)` returns the log-probability in nats, summed over pixels, given the decoder's outputs.
        exponential_family: `exponential_family(*out)` returns its exponential family form, or None.
        codes: Mean and log variance of q, (N, Z) each, if x was encoded before; else it is encoded where they are needed.
    """

    x: Tensor
    target: Tensor
    log_prob: LogProb
    exponential_family: Callable[..., ExponentialFamily | None] = lambda *out: None
    codes: tuple[Tensor, Tensor] | None = None

    def first(self, n: int) -> "View":
        """Return the same view of the first n images."""
        codes = self.codes and (self.codes[0][:n], self.codes[1][:n])
        return replace(self, x=self.x[:n], target=self.target[:n], codes=codes)

    def encoded(self, vae: VAE, batch: slice) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q for a batch of images, (1, B, Z) each."""
        if self.codes is None:
            return encoded(vae, self.x[None, batch])
        mean, log_var = self.codes
        return mean[None, batch], log_var[None, batch]

    def __len__(self) -> int:
        return len(self.x)


def native(vae: VAE, x: Tensor) -> View:
    """Return tier A: a model's inputs x (N, P) under its own likelihood.

    Bounds of this view are comparable between models of the same scale only (`TrialSpec.scale`).
    """
    return View(x, x, log_prob_of(vae.likelihood), vae.likelihood.exponential_family)


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


def score_draws(vae: VAE, views: Sequence[View], batch: slice, mean: Tensor, log_var: Tensor, eps: Tensor) -> list[Pass]:
    """Decode draws of z for an encoded batch and score them by each view, as many at a time as memory allows.

    Args:
        vae: The model, of one lane.
        views: The data and the probabilities; only `target` and `log_prob` of each are used.
        batch: The images of the batch.
        mean: Mean of q, (1, B, Z).
        log_var: Log variance of q, (1, B, Z).
        eps: Draws from N(0, 1), (1, L, B, Z).

    Returns:
        For each view a `Pass` with log_px (1, L, B) in nats.
    """
    _, draws, images, _ = eps.shape
    z = mean[:, None] + (log_var / 2).exp()[:, None] * eps
    size = at_once(vae.decoder, z[:, 0])
    scored = [list[Tensor]() for _ in views]
    for some in batches(draws, max(1, size // images)):  # draws of all images, or a draw of some of them
        of_draws: list[list[Tensor]] = [[] for _ in views]
        for part in batches(images, size):
            some_z = z[:, some, part]
            out = [_by_draw(o, some_z) for o in vae.decode(some_z.flatten(1, 2))]
            for of_view, view in zip(of_draws, views, strict=True):
                of_view.append(view.log_prob(view.target[batch][None, None, part], *out))
        for of_view, log_px in zip(scored, of_draws, strict=True):
            of_view.append(torch.cat(log_px, 2))
    return [Pass(mean, log_var, eps, z, torch.cat(log_px, 1)) for log_px in scored]


def _by_draw(out: Tensor, z: Tensor) -> Tensor:
    """Return an output for z (1, L, B, Z), (1, L B, P), as (1, L, B, P); a scalar of all rows as it is."""
    return out.unflatten(1, z.shape[1:3]) if out.shape[1] == z.shape[1] * z.shape[2] else out


def estimate_elbo(vae: VAE, view: View, samples: int, seed: int = 0, *, batch_size: int = BATCH) -> ElboScore:
    """Return the ELBO estimated with so many draws of z per image; the draws are the same for every model of equal Z."""
    return estimate_elbos(vae, [view], [samples], seed, batch_size=batch_size)[0]


@torch.no_grad()
def estimate_elbos(
    vae: VAE, views: Sequence[View], samples: Sequence[int], seed: int = 0, *, batch_size: int = BATCH
) -> list[ElboScore]:
    """Return the ELBO of each view of the same images, with so many draws of z per image for each.

    Images are encoded once and a draw is decoded once for all views. Of a batch of images a view of fewer draws takes the first
    ones of another's, so with several views all have the draws of `estimate_elbo` only where their numbers are equal.
    """
    generator, n = torch.Generator().manual_seed(seed), len(views[0])
    kl = torch.zeros((), dtype=torch.float64)
    recon, variance = (torch.zeros(len(views), dtype=torch.float64) for _ in range(2))
    for batch in batches(n, batch_size):
        mean, log_var = views[0].encoded(vae, batch)
        kl += kl_per_dimension(mean, log_var).sum(dtype=torch.float64).cpu()
        draws: list[list[Tensor]] = [[] for _ in views]
        for i in range(max(samples)):
            eps = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
            wanting = [v for v, wanted in enumerate(samples) if i < wanted]
            scored = score_draws(vae, [views[v] for v in wanting], batch, mean, log_var, eps[:, None])
            for v, p in zip(wanting, scored, strict=True):
                draws[v].append(p.log_px[0, 0])
        for v, of_view in enumerate(draws):
            log_px = torch.stack(of_view).double()
            recon[v] += log_px.mean(0).sum().cpu()
            variance[v] += log_px.var(0).sum().cpu() / len(of_view) if len(of_view) > 1 else torch.nan
    terms = zip((recon / n).tolist(), (variance.sqrt() / n).tolist(), strict=True)
    return [ElboScore(r - (kl / n).item(), r, (kl / n).item(), error) for r, error in terms]


def importance(vae: VAE, view: View, most: int, seed: int = 0, **how: Any) -> Importance:
    """Return `importances` of one view, of all its images."""
    return importances(vae, [view], [most], [len(view)], seed, **how)[0]


@torch.no_grad()
def importances(
    vae: VAE,
    views: Sequence[View],
    most: Sequence[int],
    images: Sequence[int],
    seed: int = 0,
    *,
    rows: int = ROWS,
    draws: int = DRAWS,
    ladder: Sequence[int] = LADDER,
) -> list[Importance]:
    """Return IW-K = log 1/K sum_k w_k, w = p(x|z) p(z) / q(z|x), of every image for each K of `ladder` up to `most`, by view.

    E[IW-K] grows with K up to log p(x) (Burda et al., 2016, https://arxiv.org/abs/1509.00519). All K use the same draws: a K below
    the largest is averaged over the groups of K into which they are divided. The effective sample size is (sum w)^2 / sum w^2.

    Args:
        vae: The model, of one lane.
        views: The data and the probabilities, of the same images, which are encoded and decoded once for all.
        most: The largest K of each view, rounded down to one of `ladder`; a view of fewer draws takes the first of each batch.
        images: How many images of each view are scored, the first ones, or all if it has fewer.
        seed: Of the draws.
        rows: Draws x images that are drawn at a time.
        draws: Draws of an image whose weights are summed before they are stored; a divisor or a multiple of every K.
        ladder: The values of K, rising.
    """
    ladders, images = [[k for k in ladder if k <= m] for m in most], [min(wanted, len(views[0])) for wanted in images]
    chunk = min(draws, *(ks[-1] for ks in ladders))
    generator = torch.Generator(views[0].x.device).manual_seed(seed)
    found: list[list[Importance]] = [[] for _ in views]
    for batch in batches(max(images), max(1, rows // chunk)):
        mean, log_var = views[0].encoded(vae, batch)
        left = [wanted - batch.start for wanted in images]
        sums = [_Sums(ks, chunk) for ks in ladders]
        for start in range(0, max(ks[-1] for ks in ladders), chunk):
            eps = torch.randn(1, chunk, *mean.shape[1:], generator=generator, device=mean.device, dtype=mean.dtype)
            wanting = [v for v, ks in enumerate(ladders) if left[v] > 0 and start < ks[-1]]
            scored = score_draws(vae, [views[v] for v in wanting], batch, mean, log_var, eps)
            for v, p in zip(wanting, scored, strict=True):
                sums[v].add(log_weights(p)[0, :, : left[v]].double())
        for v, of_view in enumerate(found):
            if left[v] > 0:
                of_view.append(sums[v].bounds())
    return [
        Importance({k: torch.cat([of.bounds[k] for of in parts_of]) for k in ks}, torch.cat([of.effective for of in parts_of]))
        for ks, parts_of in zip(ladders, found, strict=True)
    ]


class _Sums:
    """Sums of the weights of a batch of B images, chunk of draws by chunk.

    Attributes:
        ks: The values of K.
        chunk: The draws of a chunk.
        groups: The log mean weight of each chunk, (B,).
        squares: The log of the sum of the squared weights of each chunk, (B,).
        small: For each K below a chunk, the mean of IW-K over its groups in each chunk, (B,).
    """

    def __init__(self, ks: Sequence[int], chunk: int) -> None:
        self.ks, self.chunk = ks, chunk
        self.groups: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.small: dict[int, list[Tensor]] = {k: [] for k in ks if k < chunk}

    def add(self, log_w: Tensor) -> None:
        """Add the log weights of a chunk, (chunk, B)."""
        self.groups.append(_log_mean(log_w, self.chunk)[0])
        self.squares.append(torch.logsumexp(2 * log_w, 0))
        for k, means in self.small.items():
            means.append(_log_mean(log_w, k).mean(0))

    def bounds(self) -> Importance:
        """Return the bounds of the batch."""
        by_chunk = torch.stack(self.groups)
        per_image = {k: torch.stack(self.small[k]) if k < self.chunk else _log_mean(by_chunk, k // self.chunk) for k in self.ks}
        log_sum = torch.logsumexp(by_chunk, 0) + math.log(self.chunk)
        effective = (2 * log_sum - torch.logsumexp(torch.stack(self.squares), 0)).exp()
        return Importance({k: bound.mean(0).cpu() for k, bound in per_image.items()}, effective.cpu())


def _log_mean(log_w: Tensor, k: int) -> Tensor:
    """Return the log of the mean weight of each group of k consecutive draws: (L, B) to (L / k, B)."""
    return torch.logsumexp(log_w.view(-1, k, log_w.shape[-1]), 1) - math.log(k)
