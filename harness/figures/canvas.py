"""Helpers of several figures: the subject, the choice of images and latents to show, and images and points on axes."""

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

PER_CLASS = 400  # points per class in a scatter plot: more would hide each other
GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0, "interpolation": "nearest"}


@dataclass(frozen=True)
class Subject:
    """A trained trial to draw.

    Attributes:
        spec: The trial.
        vae: Its model, of one lane.
        data: Its data set.
        evaluation: Its scores and encodings.
        history: Its metrics by key, one row per epoch.
    """

    spec: TrialSpec
    vae: VAE
    data: Data
    evaluation: Evaluation
    history: Sequence[Mapping[str, float]]


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, width and height in inches, that is drawn in memory whatever backend pyplot uses."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tile(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Return one picture of images (N, side, side), placed row by row with white gaps of so many pixels between them."""
    rows = -(-len(images) // columns)
    side = images.shape[1] + gap
    sheet = np.ones((rows * side - gap, columns * side - gap), dtype=np.float32)
    for i, image in enumerate(images):
        r, c = divmod(i, columns)
        sheet[r * side : r * side + image.shape[0], c * side : c * side + image.shape[1]] = image
    return sheet


def examples(labels: torch.Tensor, per_class: int = 1) -> list[int]:
    """Return the indices of the first images of every class, class by class: the same images for every trial."""
    return [int(i) for k in sorted(set(labels.tolist())) for i in (labels == k).nonzero()[:per_class, 0]]


def scatter_points(labels: torch.Tensor) -> torch.Tensor:
    """Return the indices of the images that a scatter plot of latents shows, the first `PER_CLASS` of every class."""
    return torch.tensor(examples(labels, PER_CLASS))


def axes_to_show(evaluation: Evaluation) -> tuple[int, int]:
    """Return the indices of the two latents with the largest KL, in ascending order; the same one twice if there is only one."""
    top = evaluation.kl_per_dimension.topk(min(2, len(evaluation.kl_per_dimension))).indices.sort().values.tolist()
    return top[0], top[-1]


def scatter(ax: Axes, mean: np.ndarray, labels: np.ndarray) -> PathCollection:
    """Draw points (N, 2), coloured by class, on axes of equal scale, and return them."""
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
    """Return the mean images of z (N, Z), (N, side, side) on [0, 1]."""
    device = next(vae.parameters()).device
    return vae.likelihood.mean(*vae.decode(z.to(device)[None]))[0].clamp(0, 1).cpu().view(-1, side, side).numpy()


def show_images(ax: Axes, sheet: np.ndarray) -> None:
    """Draw a grey picture on [0, 1] without ticks and frame."""
    ax.imshow(sheet, **GREY)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
