"""The true posterior p(z|x) of a few images on grids, with q(z|x) over it (z = 2). Shapes: P pixels, G nodes along a side."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch

from harness.figures.canvas import Subject, examples, new_figure, show_images
from harness.metrics import model_inputs, native
from harness.metrics.bounds import View
from harness.models.vae import VAE

CLASSES = (0, 1, 2, 3, 4, 7)
ZOOMS = ((64, 40.0), (32, 15.0), (32, 8.0))  # nodes along a side, and nats below the peak that are kept: 8 leave 99.9 % of a normal
AT_Q, FINE = 24, 64  # nodes along a side under q, and to draw
EXTENT, BORDER = 4.0, 1.0  # where the search starts: the prior's range, or this far beyond the code
SIGMAS = 4.0  # of q that its own grid spans
ELEMENTS = 2_000_000  # decoded at once: nodes x pixels x outputs of a pixel
SHADES = ("#deebf7", "#9ecae1", "#3182bd")
COLOUR = "tab:orange"


class Posterior(NamedTuple):
    """p(z|x) of one image as log densities (G, G), rows z2 and columns z1, at nodes z1 and z2 (G,); log p(x) and its bound."""

    z1: np.ndarray
    z2: np.ndarray
    log_p: np.ndarray
    log_px: float
    elbo: float

    @property
    def kl(self) -> float:
        """KL(q(z|x) || p(z|x)), in nats."""
        return self.log_px - self.elbo

    def level(self, mass: float) -> float:
        """The log density of p(z|x) above which this share of its mass lies."""
        falling = np.sort(self.log_p, axis=None)[::-1]
        held = np.exp(falling).cumsum()
        return float(falling[min(held.searchsorted(mass * held[-1]), falling.size - 1)])


@torch.no_grad()
def posterior(vae: VAE, view: View) -> Posterior:
    """p(z|x) of a view's only image on a grid that holds its mass, found by zooming in; the ELBO on a grid of q's own."""
    mean, log_var = (t[0, 0].double().cpu().numpy() for t in vae.encoder(view.x[None]))
    sd = np.exp(log_var / 2)
    near = _nodes(mean - SIGMAS * sd, mean + SIGMAS * sd, AT_Q)
    at_q = _log_joint(vae, view, near)
    log_q = -(((near - mean) / sd) ** 2 + log_var).sum(-1) / 2
    weight = np.exp(log_q - np.logaddexp.reduce(log_q, axis=None))
    elbo = float((weight * (at_q - log_q)).sum()) + math.log(2 * math.pi)
    reach = max(EXTENT, float(np.abs(mean).max()) + BORDER)
    low, high = np.full(2, -reach), np.full(2, reach)
    for side, margin in ZOOMS:
        z = _nodes(low, high, side)
        log_joint = _log_joint(vae, view, z)
        floor = max(log_joint.max(), at_q.max()) - margin
        around = (high - low) / (side - 1)
        kept = np.concatenate((z[log_joint > floor] - around, z[log_joint > floor] + around, near[at_q > floor]))
        low, high = kept.min(0), kept.max(0)
    z = _nodes(low, high, FINE)
    log_joint = _log_joint(vae, view, z)
    log_px = float(np.logaddexp.reduce(log_joint, axis=None) + np.log((high - low) / (FINE - 1)).sum())
    return Posterior(z[0, :, 0], z[:, 0, 1], log_joint - log_px, log_px, elbo)


def _nodes(low: np.ndarray, high: np.ndarray, count: int) -> np.ndarray:
    """An even grid over a rectangle, (G, G, 2): rows z2, columns z1."""
    return np.stack(np.meshgrid(*np.linspace(low, high, count).T), -1)


def _log_joint(vae: VAE, view: View, nodes: np.ndarray) -> np.ndarray:
    """log p(x|z) + log p(z) at nodes (G, G, 2), (G, G)."""
    z = torch.from_numpy(nodes.reshape(-1, 2))
    outputs = view.x.shape[1] * vae.likelihood.params
    parts = [
        view.log_prob(view.target[None], *vae.decode(some[None].to(view.x.device, view.x.dtype)))[0]
        for some in z.split(max(1, ELEMENTS // outputs))
    ]
    log_prior = -z.square().sum(1) / 2 - math.log(2 * math.pi)
    return (torch.cat(parts).double().cpu() + log_prior).numpy().reshape(nodes.shape[:-1])


def posteriors(s: Subject) -> Figure:
    """The true posterior of six test images as filled contours, q's ellipses over it, and the KL between them (z = 2)."""
    firsts = examples(s.data.test.labels)
    where = next(s.vae.parameters()).device
    x = model_inputs(s.spec, s.vae, s.data.test)
    figure = new_figure(11, 6.6)
    grid = figure.add_gridspec(2, 6, width_ratios=(1.15, 3.2) * 3)
    for i, k in enumerate(CLASSES):
        image = firsts[k]
        row, column = divmod(i, 3)
        left, right = (figure.add_subplot(grid[row, 2 * column + c]) for c in range(2))
        found = posterior(s.vae, native(s.vae, x[[image]].to(where)))
        show_images(left, x[image].cpu().view(s.data.side, s.data.side).numpy())
        left.set_anchor("N")
        left.set_xlabel(f"KL(q || p)\n{found.kl:.2f} nats")
        _contours(right, found, s.evaluation.test.mean[image].tolist(), s.evaluation.test.log_var[image].exp().sqrt().tolist())
    figure.legend(
        handles=[
            *(Patch(color=c, label=f"{_mass(sigmas):.0%} of p(z|x)") for c, sigmas in zip(SHADES, (3, 2, 1), strict=True)),
            Line2D([], [], color=COLOUR, label=f"q(z|x): 1 and 2 sigma, {_mass(1):.0%} and {_mass(2):.0%} of it"),
        ],
        loc="outside lower center",
        ncols=4,
        frameon=False,
    )
    figure.suptitle("six test images: the encoder's q(z|x) over the decoder's true posterior p(z|x); KL(q || p) = log p(x) - ELBO")
    return figure


def _mass(sigmas: float) -> float:
    """What a normal of two dimensions holds within so many sigmas."""
    return 1 - math.exp(-(sigmas**2) / 2)


def _contours(ax: Axes, found: Posterior, mean: Sequence[float], sd: Sequence[float]) -> None:
    levels = [found.level(_mass(sigmas)) for sigmas in (3, 2, 1)]
    ax.contourf(found.z1, found.z2, found.log_p, levels=[*levels, found.log_p.max() + 1], colors=SHADES)
    for sigmas in (1, 2):
        ax.add_patch(Ellipse((mean[0], mean[1]), 2 * sigmas * sd[0], 2 * sigmas * sd[1], fill=False, color=COLOUR, linewidth=1.8))
    centre, room = np.array(mean), 2.5 * np.array(sd)
    low = np.minimum((found.z1[0], found.z2[0]), centre - room)
    high = np.maximum((found.z1[-1], found.z2[-1]), centre + room)
    half = (high - low).max() / 2
    (left, bottom), (right, top) = (low + high) / 2 - half, (low + high) / 2 + half
    ax.set(xlabel="z1", ylabel="z2", xlim=(left, right), ylim=(bottom, top))
    ax.set_box_aspect(1)
    ax.locator_params(nbins=4)
