"""The true posterior p(z|x) of a few images with q(z|x) over it, for two latents. Shapes: P pixels, G nodes along a side."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch

from harness.figures.axes import new_figure, show_images, tile
from harness.figures.canvas import Subject, examples
from harness.metrics import model_inputs, native
from harness.metrics.bounds import View
from harness.models.vae import VAE

CLASSES = (0, 1, 2, 3, 4, 7)
# Nodes along a side, and nats below the peak that the next grid still covers: 8 cover 99.9 % of a normal.
ZOOMS = ((64, 40.0), (32, 15.0), (32, 8.0))
Q_NODES, DRAWN_NODES = 24, 64  # along a side of the grid under q, and of the one that is drawn
EXTENT, PADDING = 4.0, 1.0  # of the first grid, on each side of 0: at least so far, and so far beyond the code
SIGMAS = 4.0  # standard deviations of q that its grid covers on each side
ELEMENTS = 2_000_000  # decoded at once: nodes x pixels x outputs of a pixel
SHADES = ("#deebf7", "#9ecae1", "#3182bd")
COLOUR = "tab:orange"


class Posterior(NamedTuple):
    """The true posterior p(z|x) of one image on a grid.

    Attributes:
        z1: Nodes along the first latent, (G,).
        z2: Nodes along the second latent, (G,).
        log_p: log p(z|x) at the nodes, (G, G): rows z2, columns z1.
        log_px: log p(x) in nats.
        elbo: The ELBO of the image in nats.
    """

    z1: np.ndarray
    z2: np.ndarray
    log_p: np.ndarray
    log_px: float
    elbo: float

    @property
    def kl(self) -> float:
        """KL(q(z|x) || p(z|x)) in nats."""
        return self.log_px - self.elbo

    def level(self, mass: float) -> float:
        """Return the log density above which p(z|x) has this share of its mass."""
        falling = np.sort(self.log_p, axis=None)[::-1]
        held = np.exp(falling).cumsum()
        return float(falling[min(held.searchsorted(mass * held[-1]), falling.size - 1)])


@torch.no_grad()
def posterior(vae: VAE, view: View) -> Posterior:
    """Return p(z|x) of a view's only image on a grid that covers its mass.

    The grid is found by zooming in. The ELBO is computed on another grid that covers q.
    """
    mean, log_var = (t[0, 0].double().cpu().numpy() for t in vae.encoder(view.x[None]))
    sd = np.exp(log_var / 2)
    near = _nodes(mean - SIGMAS * sd, mean + SIGMAS * sd, Q_NODES)
    at_q = _log_joint(vae, view, near)
    log_q = -(((near - mean) / sd) ** 2 + log_var).sum(-1) / 2
    weight = np.exp(log_q - np.logaddexp.reduce(log_q, axis=None))
    elbo = float((weight * (at_q - log_q)).sum()) + math.log(2 * math.pi)
    reach = max(EXTENT, float(np.abs(mean).max()) + PADDING)
    low, high = np.full(2, -reach), np.full(2, reach)
    for side, margin in ZOOMS:
        z = _nodes(low, high, side)
        log_joint = _log_joint(vae, view, z)
        floor = max(log_joint.max(), at_q.max()) - margin
        around = (high - low) / (side - 1)
        covered = np.concatenate((z[log_joint > floor] - around, z[log_joint > floor] + around, near[at_q > floor]))
        low, high = covered.min(0), covered.max(0)
    z = _nodes(low, high, DRAWN_NODES)
    log_joint = _log_joint(vae, view, z)
    log_px = float(np.logaddexp.reduce(log_joint, axis=None) + np.log((high - low) / (DRAWN_NODES - 1)).sum())
    return Posterior(z[0, :, 0], z[:, 0, 1], log_joint - log_px, log_px, elbo)


def _nodes(low: np.ndarray, high: np.ndarray, count: int) -> np.ndarray:
    """Return an even grid over a rectangle with corners low and high (2,), (G, G, 2): rows z2, columns z1."""
    return np.stack(np.meshgrid(*np.linspace(low, high, count).T), -1)


def _log_joint(vae: VAE, view: View, nodes: np.ndarray) -> np.ndarray:
    """Return log p(x|z) + log p(z) of a view's only image at nodes (G, G, 2), (G, G)."""
    z = torch.from_numpy(nodes.reshape(-1, 2))
    outputs = view.x.shape[1] * vae.likelihood.outputs
    parts = [
        view.log_prob(view.target[None], *vae.decode(chunk[None].to(view.x.device, view.x.dtype)))[0]
        for chunk in torch.split(z, max(1, ELEMENTS // outputs))
    ]
    log_prior = -z.square().sum(1) / 2 - math.log(2 * math.pi)
    return (torch.cat(parts).double().cpu() + log_prior).numpy().reshape(nodes.shape[:-1])


def posteriors(s: Subject) -> Figure:
    """Draw the true posterior of six test images as filled contours, q's ellipses over it, and their KL (two latents)."""
    firsts = examples(s.data.test)
    device = next(s.vae.parameters()).device
    x = model_inputs(s.spec, s.data.test)
    figure = new_figure(11, 6.6)
    grid = figure.add_gridspec(2, 6, width_ratios=(1.15, 3.2) * 3)
    for i, k in enumerate(CLASSES):
        image = firsts[k] if k < len(firsts) else i
        row, column = divmod(i, 3)
        left, right = (figure.add_subplot(grid[row, 2 * column + c]) for c in range(2))
        result = posterior(s.vae, native(s.vae, x[[image]].to(device)))
        show_images(left, tile(x[[image]].cpu().unflatten(-1, s.data.image_shape).numpy(), 1))
        left.set_anchor("N")
        left.set_xlabel(f"KL(q || p)\n{result.kl:.2f} nats")
        _contours(right, result, s.evaluation.test.mean[image].tolist(), s.evaluation.test.log_var[image].exp().sqrt().tolist())
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
    """Return the mass of a normal distribution of two dimensions within so many sigmas."""
    return 1 - math.exp(-(sigmas**2) / 2)


def _contours(ax: Axes, result: Posterior, mean: Sequence[float], sd: Sequence[float]) -> None:
    """Draw a posterior as contours of its mass within 1, 2 and 3 sigmas, with q's ellipses at 1 and 2 standard deviations."""
    levels = [result.level(_mass(sigmas)) for sigmas in (3, 2, 1)]
    ax.contourf(result.z1, result.z2, result.log_p, levels=[*levels, result.log_p.max() + 1], colors=SHADES)
    for sigmas in (1, 2):
        ax.add_patch(Ellipse((mean[0], mean[1]), 2 * sigmas * sd[0], 2 * sigmas * sd[1], fill=False, color=COLOUR, linewidth=1.8))
    centre, margin = np.array(mean), 2.5 * np.array(sd)
    low = np.minimum((result.z1[0], result.z2[0]), centre - margin)
    high = np.maximum((result.z1[-1], result.z2[-1]), centre + margin)
    half = (high - low).max() / 2
    (left, bottom), (right, top) = (low + high) / 2 - half, (low + high) / 2 + half
    ax.set(xlabel="z1", ylabel="z2", xlim=(left, right), ylim=(bottom, top))
    ax.set_box_aspect(1)
    ax.locator_params(nbins=4)
