"""What several figures use: the subject, which images and latents are shown, and how pictures and points are put on axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from harness.data import Data
from harness.metrics import Evaluation
from harness.models.vae import VAE
from harness.spec import TrialSpec

PER_CLASS = 400  # points per class in a scatter: more hide each other
GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0, "interpolation": "nearest"}


@dataclass(frozen=True)
class Subject:
    """What there is to draw: a trial, its model and scores, and its history (a row per epoch)."""

    spec: TrialSpec
    vae: VAE
    data: Data
    evaluation: Evaluation
    history: Sequence[Mapping[str, float]]


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, width and height in inches, that is drawn in memory whatever backend pyplot has been told to use."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tile(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Images (N, side, side) laid out row by row with white gaps: one picture."""
    rows = -(-len(images) // columns)
    side = images.shape[1] + gap
    sheet = np.ones((rows * side - gap, columns * side - gap), dtype=np.float32)
    for i, image in enumerate(images):
        r, c = divmod(i, columns)
        sheet[r * side : r * side + image.shape[0], c * side : c * side + image.shape[1]] = image
    return sheet


def examples(labels: torch.Tensor, each: int = 1) -> list[int]:
    """Indices of the first `each` images of every class, class by class: the same pictures for every trial."""
    return [int(i) for k in labels.unique() for i in (labels == k).nonzero()[:each, 0]]


def scatter_points(labels: torch.Tensor) -> torch.Tensor:
    """Indices of the images that a latent scatter shows."""
    return torch.tensor(examples(labels, PER_CLASS))


def axes_to_show(evaluation: Evaluation) -> tuple[int, int]:
    """The two latents with the largest KL, in their own order; the same one twice where z = 1."""
    top = evaluation.kl_per_dimension.topk(min(2, len(evaluation.kl_per_dimension))).indices.sort().values.tolist()
    return top[0], top[-1]


def scatter(ax: Axes, mean: np.ndarray, labels: np.ndarray) -> PathCollection:
    """Points (N, 2) coloured by class on square axes around the prior."""
    classes = int(labels.max()) + 1
    dots = ax.scatter(
        mean[:, 0],
        mean[:, 1],
        c=labels,
        s=3,
        linewidths=0,
        cmap=mpl.colormaps["tab10"].resampled(classes),
        vmin=-0.5,
        vmax=classes - 0.5,
    )
    ax.set_aspect("equal", adjustable="datalim")
    return dots


@torch.no_grad()
def decode(vae: VAE, z: torch.Tensor, side: int) -> np.ndarray:
    """Mean images of z (N, Z): (N, side, side)."""
    where = next(vae.parameters()).device
    return vae.likelihood.mean(*vae.decode(z.to(where)[None]))[0].clamp(0, 1).cpu().view(-1, side, side).numpy()


def show_images(ax: Axes, sheet: np.ndarray) -> None:
    """A picture without axes."""
    ax.imshow(sheet, **GREY)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
