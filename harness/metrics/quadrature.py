"""Exact log p(x) at one or two latents, by adaptive quadrature. Shapes: N images, M pairs of image and cell, G nodes, P pixels.

p(x) is the integral of p(x|z) p(z) over z. Latent space is divided into square cells, and the integral over a cell is computed by a
Gauss-Legendre rule. For each image, a cell whose integral differs from the sum over its 2^Z children is replaced by them. All
images share the decoded nodes of a cell, and if the likelihood is an exponential family in x, a cell takes one matrix product.

The decoder of a model that went wrong may be so rugged that its cells would be divided for hours, so there is a budget. It counts
cells, so that whether an integral is resolved does not depend on the machine's speed; seconds are the last guard only.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.metrics.bounds import View, batches
from harness.metrics.memory import at_once, encoded
from harness.models.vae import VAE

ORDER = 4  # nodes along a cell's side
EXTENT = 6.0  # of the range for the prior, on each side of 0
PADDING, WIDTHS = 1.0, 8.0  # added to the range around each code: a length, and so many standard deviations of q
SIDE, CELLS_ALONG = 0.5, 64  # of cells on the first level: their width, and the most along a side, for which they may be wider
DEPTH = 16  # most halvings of a cell; a posterior of width 1e-4 takes 13
TOLERANCE = 1e-3  # of an image's integral, per cell
# Cells within NEAR standard deviations of q around a code are divided until they are no wider than RESOLVED of them: a peak that
# extends into a neighbouring cell may fall between the nodes there.
NEAR, RESOLVED = 6.0, 8.0
# Cells so many nats below an image's total are not divided, by level; the margin is wide while peaks are unresolved. It need not be
# wider than what is REACH times as small as the tolerance, in logarithms, and what nodes miss of a peak as wide as the image's q:
# with z of two dimensions 0.03 (side / width)^2, of which MISSED is three times as much.
MARGINS = (40.0, 25.0, 18.0)
REACH, MISSED = 2.6, 0.1
# A cell wider than SIDE that is so many widths of q wide is settled only if it holds less than this share of the tolerance: there
# may be a peak that neither its nodes nor those of its children have met.
SETTLED, LITTLE = 16.0, 0.1
CELLS_AT_ONCE = 128
FEW = 128  # images; those of any of the cells at a time are scored under the nodes of all: a product for each cell takes longer
ELEMENTS = 20_000_000  # of a block of images x nodes x pixels x outputs of a pixel


@dataclass(frozen=True)
class Budget:
    """How much a quadrature may take before it gives up. Models in use take 700 to 5,000 pairs an image, and up to 10,000 cells.

    Attributes:
        pairs: Of image and cell, for every image.
        cells: Decoded cells, whatever the number of images.
        cells_per_image: Decoded cells beyond these, for every image.
        seconds: The last guard, against decoders that are slow: it alone makes the result depend on the machine.
    """

    pairs: int = 10_000
    cells: int = 12_000
    cells_per_image: int = 50
    seconds: float = 1_800.0


BUDGET = Budget()


class Exact(NamedTuple):
    """The result of the quadrature.

    Attributes:
        log_px: log p(x) of every image in nats, (N,).
        coarser: The same from cells twice as wide, (N,); the difference shows how well the integral is resolved.
        resolved: False if the budget ended the division of cells: then neither of the two is to be used.
        cells: The number of cells that were decoded.
    """

    log_px: Tensor
    coarser: Tensor
    resolved: bool
    cells: int


@torch.no_grad()
def exact(vae: VAE, view: View, tolerance: float = TOLERANCE, side: float = SIDE, *, budget: Budget = BUDGET) -> Exact:
    """Return log p(x) of every image of a view, for z of one or two dimensions, as far as the budget goes.

    A cell is divided until that changes its share of an image's integral by less than `tolerance`. Cells of the first level are
    `side` wide, or wider.

    Raises:
        ValueError: The model has more than two latents.
    """
    codes, spread = _encode(vae, view)
    width = spread.min(1)
    latents = codes.shape[1]
    if latents > 2:
        raise ValueError(f"quadrature is for one or two latents, got {latents}")
    around = PADDING + WIDTHS * spread
    low, high = np.minimum((codes - around).min(0), -EXTENT), np.maximum((codes + around).max(0), EXTENT)
    side = float(max(side, (high - low).max() / CELLS_ALONG))
    along = [range(int(np.ceil((b - a) / side))) for a, b in zip(low, high, strict=True)]
    first = np.array(list(product(*along)))
    image = np.tile(np.arange(len(view)), len(first))
    cell = np.repeat(first, len(view), axis=0)
    spending = _Spending(budget, len(view))
    groups = _grouped(cell)
    resolved = spending.affords(groups)  # at most CELLS_ALONG^2 cells, for which there is always room
    mass = _masses(vae, view, image, groups, low, side)
    settled, coarser = (np.full(len(view), -np.inf) for _ in range(2))
    for level in range(DEPTH):
        total = _add(settled, image, mass)
        off = np.abs(low + (cell + 0.5) * side - codes[image])
        at_code = (off <= side / 2 + NEAR * spread[image]).all(1) & (side > RESOLVED * width[image])
        live = at_code | (mass > total[image] - _margin(level, side / width, tolerance)[image])
        settled = _add(settled, image[~live], mass[~live])
        coarser = _add(coarser, image[~live], mass[~live])
        image, cell, mass, at_code = image[live], cell[live], mass[live], at_code[live]
        if not len(image):
            break
        side /= 2
        children = (2 * cell[:, None] + np.array(list(product((0, 1), repeat=latents)))).reshape(-1, latents)
        groups = _grouped(children)
        resolved = spending.affords(groups)
        if not resolved:
            break
        parts = _masses(vae, view, np.repeat(image, 2**latents), groups, low, side).reshape(len(image), -1)
        refined = np.logaddexp.reduce(parts, axis=1)
        total = _add(settled, image, refined)[image]
        change = np.abs(np.exp(np.minimum(refined - total, 50)) - np.exp(np.minimum(mass - total, 50)))
        seen = (2 * side <= np.maximum(SIDE, SETTLED * width[image])) | (refined < total + np.log(LITTLE * tolerance))
        good = (change < tolerance) & seen & ~at_code
        settled = _add(settled, image[good], refined[good])
        coarser = _add(coarser, image[good], mass[good])
        cell = children.reshape(len(image), -1, latents)[~good].reshape(-1, latents)
        image, mass = np.repeat(image[~good], 2**latents), parts[~good].ravel()
    log_px, coarse = (torch.from_numpy(_add(so_far, image, mass)) for so_far in (settled, coarser))
    return Exact(log_px, coarse, resolved, spending.cells)


def _margin(level: int, side: np.ndarray, tolerance: float) -> np.ndarray:
    """Return how many nats below an image's total a cell may be to be divided, (N,), given a cell's side in widths of its code."""
    enough: np.ndarray = MISSED * side**2 - REACH * np.log(tolerance)
    return enough.clip(max=MARGINS[min(level, len(MARGINS) - 1)])


class _Groups(NamedTuple):
    """Pairs of image and cell, grouped by cell.

    Attributes:
        order: The indices of the pairs (M,), cell by cell.
        cells: The different cells, (C, Z).
        bounds: Where each cell's pairs begin in `order`, and its end, (C + 1,).
    """

    order: np.ndarray
    cells: np.ndarray
    bounds: np.ndarray


def _grouped(cell: np.ndarray) -> _Groups:
    """Group pairs by their cell, given as whole numbers (M, Z)."""
    key = cell @ (cell.max() + 1) ** np.arange(cell.shape[1])[::-1]
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    return _Groups(order, cell[order[starts]], np.append(starts, len(key)))


class _Spending:
    """What a quadrature of some images has taken of its budget so far."""

    def __init__(self, budget: Budget, images: int) -> None:
        self.pairs = self.cells = 0
        self.most_pairs, self.most_cells = budget.pairs * images, budget.cells + budget.cells_per_image * images
        self.end = time.monotonic() + budget.seconds

    def affords(self, groups: _Groups) -> bool:
        """Return whether the budget has room for these pairs and cells; if it has, they count as taken."""
        pairs, cells = self.pairs + len(groups.order), self.cells + len(groups.cells)
        within = pairs <= self.most_pairs and cells <= self.most_cells and time.monotonic() < self.end
        if within:
            self.pairs, self.cells = pairs, cells
        return within


def _encode(vae: VAE, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return q's mean and standard deviation of every image, (N, Z) each, in float64."""
    parts = [encoded(vae, view.x[None, b]) for b in batches(len(view))]
    mean, log_var = (torch.cat([p[i][0] for p in parts]).double().cpu() for i in range(2))
    return mean.numpy(), (log_var / 2).exp().numpy()


def _add(base: np.ndarray, image: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Return log(exp(base) + the sum of each image's exp(mass)), (N,), given base (N,) and pairs of image (M,) and mass (M,)."""
    out = base.copy()
    np.logaddexp.at(out, image, mass)
    return out


def _masses(vae: VAE, view: View, image: np.ndarray, groups: _Groups, low: np.ndarray, side: float) -> np.ndarray:
    """Return the log of p(x|z) p(z) integrated over a cell, for each pair of image and cell, (M,).

    Args:
        vae: The model, of one lane.
        view: The data and the probability.
        image: Index of each pair's image, (M,).
        groups: The pairs by their cell; a cell begins at low + cell * side.
        low: The lower corner of all cells, (Z,).
        side: The width of a cell.
    """
    nodes, weights = np.polynomial.legendre.leggauss(ORDER)
    order, cells, bounds = groups
    latents = cells.shape[1]
    offset = torch.tensor(list(product((nodes + 1) / 2, repeat=latents))) * side
    log_weight = torch.tensor(list(product(weights / 2, repeat=latents))).log().sum(1) + latents * np.log(side)
    masses, scores = np.empty(len(image)), _pairs(vae, view)
    fitting = at_once(vae.decoder, view.x.new_zeros(1, 1, latents)) // len(offset)
    at_a_time = max(1, min(CELLS_AT_ONCE, fitting))
    for start in range(0, len(cells), at_a_time):
        stop = min(start + at_a_time, len(cells))
        z = torch.from_numpy(low + cells[start:stop] * side)[:, None] + offset
        log_prior = -0.5 * (z.square() + np.log(2 * np.pi)).sum(-1) + log_weight
        members, counts = order[bounds[start] : bounds[stop]], np.diff(bounds[start : stop + 1])
        log_px = scores(z, torch.from_numpy(image[members]), torch.from_numpy(counts)).cpu()
        masses[members] = torch.logsumexp(log_px + log_prior.repeat_interleave(torch.from_numpy(counts), 0), 1).numpy()
    return masses


def _pairs(vae: VAE, view: View) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return a function that decodes nodes z (cells, G, Z) and scores images under them.

    It takes the nodes, the indices of M images cell by cell and how many there are of each cell, and returns log p(x|z) of all
    pairs of an image and the nodes of its cell, (M, G), in float64.
    """
    target, like = view.target, view.x
    square = target.square().sum(1, keepdim=True).double()
    black = target.new_zeros(1, 1, target.shape[1])  # of which log p(x|z) is minus the log normaliser

    def score(z: Tensor, image: Tensor, counts: Tensor) -> Tensor:
        """Decode nodes z (cells, G, Z) and score images under them."""
        nodes, each = z.shape[1], counts.tolist()
        out = vae.decode(z.flatten(0, 1)[None].to(like.device, like.dtype))
        form = view.exponential_family(*out)
        if form is None:
            by_cell = [o if o.shape[1] == 1 else o[0].reshape(-1, nodes, o.shape[-1]) for o in out]
            return torch.cat([direct(by_cell, of_cell, c) for c, of_cell in enumerate(image.split(each))])
        eta = form.eta.reshape(-1, nodes, form.eta.shape[-1])
        half = form.precision.flatten()[0].double() / 2
        if len(target) <= FEW or len(image) == len(target) * len(each):  # by one product
            wanted, row = image.unique(return_inverse=True)
            every = (target[wanted] @ eta.flatten(0, 1).T).view(len(wanted), -1, nodes)
            product = every[row, torch.arange(len(each)).repeat_interleave(counts)]
        else:
            product = torch.cat([target[of_cell] @ eta[c].T for c, of_cell in enumerate(image.split(each))])
        log_norm = -view.log_prob(black, *out).reshape(-1, nodes).repeat_interleave(counts.to(like.device), 0)
        return (product - log_norm).double() - half * square[image]

    def direct(by_cell: Sequence[Tensor], image: Tensor, c: int) -> Tensor:
        """Score images under the nodes of cell c pair by pair, a block of images at a time."""
        nodes = max(o.shape[1] for o in by_cell)
        outputs = [o if o.shape[1] == 1 and o.shape[0] == 1 else o[c][None] for o in by_cell]
        step = max(1, ELEMENTS // (nodes * target.shape[1] * len(by_cell)))
        parts = [view.log_prob(target[block][:, None], *outputs) for block in image.split(step)]
        return torch.cat(parts).double()

    return score
