"""Exact log p(x) at one or two latents, by adaptive quadrature. Shapes: N images, M pairs of image and cell, G nodes, P pixels.

log p(x) = log of the integral of p(x|z) p(z) over z. Space is cut into square cells; a cell's share of an image's integral is a
Gauss-Legendre rule; one that differs from the sum over its 2^Z children is replaced by them, image by image. All images share the
decoded nodes of a cell, and where the likelihood is an exponential family in x, a cell is one matrix product.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.metrics.bounds import View, batches
from harness.models.vae import VAE

ORDER = 4  # nodes along a cell's side
EXTENT, BORDER, WIDTHS = 6.0, 1.0, 8.0  # the prior's own range; what is added around codes: so much, and so many widths of q
SIDE, CELLS_ALONG = 0.5, 64  # of the cells on the first level: their width, unless that makes more than so many
DEPTH = 16  # halvings; a posterior of width 1e-4 takes 13
TOLERANCE = 1e-3  # of an image's integral, per cell
NEAR, RESOLVED = (
    6.0,
    8.0,
)  # cells within so many widths of q around a code are cut until they are no wider than so many: a peak that
# reaches over a border may lie between the nodes on its other side
MARGINS = (40.0, 25.0, 18.0)  # nats below an image's total at which a cell is left alone; wide while peaks are unresolved
CELLS_AT_ONCE = 128
ELEMENTS = 20_000_000  # of a block of images x nodes x pixels


class Exact(NamedTuple):
    """log p(x) in nats per image, (N,), and the same from cells twice as wide: their difference tells the resolution."""

    log_px: Tensor
    coarser: Tensor


@torch.no_grad()
def exact(vae: VAE, view: View) -> Exact:
    """log p(x) of every image of a view, for z of one or two dimensions.

    Raises:
        ValueError: more than two latents.
    """
    codes, spread = _encode(vae, view)
    width = spread.min(1)
    latents = codes.shape[1]
    if latents > 2:
        raise ValueError(f"quadrature is for one or two latents, got {latents}")
    around = BORDER + WIDTHS * spread
    low, high = np.minimum((codes - around).min(0), -EXTENT), np.maximum((codes + around).max(0), EXTENT)
    side = float(max(SIDE, (high - low).max() / CELLS_ALONG))
    along = [range(int(np.ceil((b - a) / side))) for a, b in zip(low, high, strict=True)]
    first = np.array(list(product(*along)))
    image = np.tile(np.arange(len(view)), len(first))
    cell = np.repeat(first, len(view), axis=0)
    mass = _masses(vae, view, image, cell, low, side)
    settled, coarser = (np.full(len(view), -np.inf) for _ in range(2))
    for level in range(DEPTH):
        total = _add(settled, image, mass)
        off = np.abs(low + (cell + 0.5) * side - codes[image])
        at_code = (off <= side / 2 + NEAR * spread[image]).all(1) & (side > RESOLVED * width[image])
        live = at_code | (mass > total[image] - MARGINS[min(level, len(MARGINS) - 1)])
        settled = _add(settled, image[~live], mass[~live])
        coarser = _add(coarser, image[~live], mass[~live])
        image, cell, mass, at_code = image[live], cell[live], mass[live], at_code[live]
        if not len(image):
            break
        side /= 2
        children = (2 * cell[:, None] + np.array(list(product((0, 1), repeat=latents)))).reshape(-1, latents)
        parts = _masses(vae, view, np.repeat(image, 2**latents), children, low, side).reshape(len(image), -1)
        refined = np.logaddexp.reduce(parts, axis=1)
        total = _add(settled, image, refined)[image]
        change = np.abs(np.exp(np.minimum(refined - total, 50)) - np.exp(np.minimum(mass - total, 50)))
        good = (change < TOLERANCE) & ~at_code
        settled = _add(settled, image[good], refined[good])
        coarser = _add(coarser, image[good], mass[good])
        cell = children.reshape(len(image), -1, latents)[~good].reshape(-1, latents)
        image, mass = np.repeat(image[~good], 2**latents), parts[~good].ravel()
    return Exact(torch.from_numpy(_add(settled, image, mass)), torch.from_numpy(_add(coarser, image, mass)))


def _encode(vae: VAE, view: View) -> tuple[np.ndarray, np.ndarray]:
    """q's mean and standard deviation, (N, Z) each."""
    parts = [vae.encoder(view.x[None, b]) for b in batches(len(view))]
    mean, log_var = (torch.cat([p[i][0] for p in parts]).double().cpu() for i in range(2))
    return mean.numpy(), (log_var / 2).exp().numpy()


def _add(base: np.ndarray, image: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """log(exp(base) + the exp(mass) of each image), (N,)."""
    out = base.copy()
    np.logaddexp.at(out, image, mass)
    return out


def _masses(vae: VAE, view: View, image: np.ndarray, cell: np.ndarray, low: np.ndarray, side: float) -> np.ndarray:
    """log of each pair's integral over its cell: image (M,), cell (M, Z) whole numbers. Returns (M,)."""
    nodes, weights = np.polynomial.legendre.leggauss(ORDER)
    latents = cell.shape[1]
    offset = torch.tensor(list(product((nodes + 1) / 2, repeat=latents))) * side
    log_weight = torch.tensor(list(product(weights / 2, repeat=latents))).log().sum(1) + latents * np.log(side)
    key = cell @ (cell.max() + 1) ** np.arange(latents)[::-1]
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    cells, bounds = cell[order[starts]], np.append(starts, len(key))
    masses, scores = np.empty(len(image)), _pairs(vae, view)
    for start in range(0, len(cells), CELLS_AT_ONCE):
        stop = min(start + CELLS_AT_ONCE, len(cells))
        z = torch.from_numpy(low + cells[start:stop] * side)[:, None] + offset
        log_prior = -0.5 * (z.square() + np.log(2 * np.pi)).sum(-1) + log_weight
        score = scores(z)
        for c in range(start, stop):
            mine = order[bounds[c] : bounds[c + 1]]
            log_px = score(torch.from_numpy(image[mine]), c - start).cpu()
            masses[mine] = torch.logsumexp(log_px + log_prior[c - start], 1).numpy()
    return masses


def _pairs(vae: VAE, view: View) -> Callable[[Tensor], Callable[[Tensor, int], Tensor]]:
    """Given nodes z (cells, G, Z), a function of images (n,) and a cell to log p(x|z) of all their pairs, (n, G) in float64."""
    target, like = view.target, view.x
    square = target.square().sum(1, keepdim=True).double()

    def at(z: Tensor) -> Callable[[Tensor, int], Tensor]:
        nodes = z.shape[1]
        out = vae.decode(z.flatten(0, 1)[None].to(like.device, like.dtype))
        form = view.product(*out)
        if form is not None:
            eta, log_norm = (t.flatten(0, -2 if t is form.eta else -1).unflatten(0, (-1, nodes)) for t in (form.eta, form.log_norm))
            half = form.precision.flatten()[0].double() / 2

            def one_product(image: Tensor, c: int) -> Tensor:
                mine = slice(None) if len(image) == len(target) else image  # images come in order: then it is all of them
                return (target[mine] @ eta[c].T - log_norm[c]).double() - half * square[mine]

            return one_product
        own = [o if o.shape[1] == 1 else o[0].unflatten(0, (-1, nodes)) for o in out]

        def direct(image: Tensor, c: int) -> Tensor:
            here = [o if o.shape[1] == 1 and o.shape[0] == 1 else o[c][None] for o in own]
            step = max(1, ELEMENTS // (nodes * target.shape[1]))
            parts = [view.log_prob(target[image[i : i + step]][:, None], *here) for i in range(0, len(image), step)]
            return torch.cat(parts).double()

        return direct

    return at
