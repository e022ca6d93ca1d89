"""Figures, images and points on axes, for pictures of trials and for reports. Torch is not imported here."""

import math
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

FEW_POINTS = 500  # of which each is drawn larger
GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0, "interpolation": "nearest"}


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, width and height in inches, that is drawn in memory whatever backend pyplot uses."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes in a place given in inches, to a figure that is not laid out: a layout takes as long as drawing."""
    across, up = figure.get_size_inches()
    figure.set_layout_engine("none")
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


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


def kept_images(levels: np.ndarray) -> np.ndarray:
    """Return images of a run's pictures.npz as (N, C, H, W); earlier versions kept square grey ones, as (N, P) or (N, H, W)."""
    side = math.isqrt(levels[0].size)
    return levels if levels.ndim == 4 else levels.reshape(-1, 1, side, side)


def scatter(figure: Figure, ax: Axes, mean: np.ndarray, labels: np.ndarray | None, label: str = "") -> None:
    """Draw points (N, 2) on axes of equal scale, coloured by class, with a bar of the classes that has this label.

    Without labels all have one colour, and there is no bar.
    """
    ax.set_aspect("equal", adjustable="datalim")
    size = dot_size(len(mean))
    if labels is None:
        ax.scatter(mean[:, 0], mean[:, 1], s=size, linewidths=0, rasterized=True)
        return
    classes = int(labels.max()) + 1
    dots = ax.scatter(
        mean[:, 0],
        mean[:, 1],
        c=labels,
        s=size,
        linewidths=0,
        cmap=class_colours(classes),
        vmin=-0.5,
        vmax=classes - 0.5,
        rasterized=True,  # thousands of dots: within SVG and PDF they are pixels
    )
    bar = figure.colorbar(dots, ax=ax, label=label, ticks=class_ticks(classes))
    bar.ax.tick_params(labelsize=ax.xaxis.get_ticklabels()[0].get_fontsize())


def dot_size(points: int) -> int:
    """Return the area of a dot among so many, in square points."""
    return 3 if points > FEW_POINTS else 12


def class_colours(classes: int) -> Colormap:
    """Return a colour for each of so many classes."""
    name = next((name for name, most in {"tab10": 10, "tab20": 20}.items() if classes <= most), "turbo")
    return mpl.colormaps[name].resampled(classes)


def class_ticks(classes: int) -> range:
    """Return the classes that have a number beside a bar of their colours."""
    return range(0, classes, -(-classes // 20))


def text_width(texts: Iterable[str], size: float) -> float:
    """Return the width of the longest of these lines of text in inches, with letters of so many points."""
    font = FontProperties(size=size)
    longest = max(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] for text in texts)
    return float(1.05 * longest / 72)  # letters of whole pixels are wider


def show_images(ax: Axes, sheet: np.ndarray) -> None:
    """Draw a picture on [0, 1], grey or in colour, without ticks and frame."""
    ax.imshow(sheet, **GREY)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
