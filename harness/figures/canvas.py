"""Helpers of several figures: the subject, the choice of images and latents to show, and images and points on axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.data import Data, Split
from harness.metrics import Evaluation
from harness.models.vae import VAE
from harness.spec import TrialSpec

PER_CLASS = 400  # points per class in a scatter plot: more would hide each other
FEW_POINTS = 500  # of which each is drawn larger
MOST_CLASSES = 10  # of which images are shown; of images without labels as many are
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
    """Return one picture of images (N, C, H, W), placed row by row with white gaps of so many pixels between them.

    It is (rows, columns, 3) of images in red, green and blue, and grey, (rows, columns), of all others: the mean of their channels.
    """
    colour = images.shape[1] == 3
    shown = images.transpose(0, 2, 3, 1) if colour else images.mean(1)
    rows = -(-len(images) // columns)
    height, width = shown.shape[1] + gap, shown.shape[2] + gap
    sheet = np.ones((rows * height - gap, columns * width - gap, *shown.shape[3:]), dtype=np.float32)
    for i, image in enumerate(shown):
        r, c = divmod(i, columns)
        sheet[r * height : r * height + image.shape[0], c * width : c * width + image.shape[1]] = image
    return sheet


def examples(split: Split, per_class: int = 1, most: int = MOST_CLASSES) -> list[int]:
    """Return the indices of the first images of each of the first classes, class by class: the same images for every trial.

    Of fewer than `most` classes they are more of each, and of images without labels the first ones: about as many in all.
    """
    if split.labels is None:
        return list(range(min(len(split), most * per_class)))
    classes = sorted(set(split.labels.tolist()))[:most]
    each = most * per_class // len(classes)
    return [int(i) for k in classes for i in (split.labels == k).nonzero()[:each, 0]]


def scatter_points(split: Split) -> torch.Tensor:
    """Return the indices of the images that a scatter plot of latents shows, the first `PER_CLASS` of every class."""
    classes = MOST_CLASSES if split.labels is None else int(split.labels.max()) + 1
    return torch.tensor(examples(split, PER_CLASS, classes))


def axes_to_show(evaluation: Evaluation) -> tuple[int, int]:
    """Return the indices of the two latents with the largest KL, in ascending order; the same one twice if there is only one."""
    top = evaluation.kl_per_dimension.topk(min(2, len(evaluation.kl_per_dimension))).indices.sort().values.tolist()
    return top[0], top[-1]


def scatter(figure: Figure, ax: Axes, mean: np.ndarray, labels: np.ndarray | None, label: str = "") -> None:
    """Draw points (N, 2) on axes of equal scale, coloured by class, with a bar of the classes that has this label.

    Without labels all have one colour, and there is no bar.
    """
    ax.set_aspect("equal", adjustable="datalim")
    size = 3 if len(mean) > FEW_POINTS else 12
    if labels is None:
        ax.scatter(mean[:, 0], mean[:, 1], s=size, linewidths=0)
        return
    classes = int(labels.max()) + 1
    colours = next((name for name, most in {"tab10": 10, "tab20": 20}.items() if classes <= most), "turbo")
    dots = ax.scatter(
        mean[:, 0],
        mean[:, 1],
        c=labels,
        s=size,
        linewidths=0,
        cmap=mpl.colormaps[colours].resampled(classes),
        vmin=-0.5,
        vmax=classes - 0.5,
    )
    bar = figure.colorbar(dots, ax=ax, label=label, ticks=range(0, classes, -(-classes // 20)))
    bar.ax.tick_params(labelsize=ax.xaxis.get_ticklabels()[0].get_fontsize())


@torch.no_grad()
def decode(vae: VAE, z: torch.Tensor, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Return the mean images of z (N, Z), (N, C, H, W) on [0, 1]."""
    device = next(vae.parameters()).device
    mean = vae.likelihood.mean(*vae.decode(z.to(device)[None]))[0]
    return mean.clamp(0, 1).cpu().view(-1, *image_shape).numpy()


def show_images(ax: Axes, sheet: np.ndarray) -> None:
    """Draw a picture on [0, 1], grey or in colour, without ticks and frame."""
    ax.imshow(sheet, **GREY)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
