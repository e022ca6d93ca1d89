"""The pictures of all arms: images, reconstructions, draws and latents, side by side in a figure, and one by one for the page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage, BboxImage, imsave
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D, Bbox, IdentityTransform, TransformedBbox

from harness.figures.axes import axes_at, class_colours, class_ticks, dot_size, kept_images, new_figure, text_width, tile
from harness.report.saved_figures import FINE, save, save_svg

BOX = np.array([2.6, 2.0])  # width and height of a plane of latents, in inches
ROW = 2.3  # height of an arm's row in the gallery
NAMES = 11  # size of the arms' names in points


@dataclass(frozen=True)
class Kept:
    """What the pictures of an arm are drawn from.

    Attributes:
        pairs: test images and below them their reconstructions, as one picture on [0, 1].
        draws: decoded draws from the prior, as one picture.
        latents: posterior means, (N, 2).
        labels: their classes, or None.
    """

    pairs: np.ndarray
    draws: np.ndarray
    latents: np.ndarray
    labels: np.ndarray | None

    @classmethod
    def of(cls, file: Path) -> "Kept":
        """Read a run's pictures.npz."""
        with np.load(file, allow_pickle=False) as arrays:
            pair = np.concatenate([_images(arrays["original"]), _images(arrays["reconstruction"])])
            draws = _images(arrays["samples"])
            return cls(tile(pair, len(pair) // 2), tile(draws, 4), arrays["latents"].astype(float), arrays.get("labels"))


@dataclass(frozen=True)
class Cloud:
    """The latents of an arm, drawn once for all figures that show them: dots in axes of their own take most of the time.

    Attributes:
        pixels: the dots, in red, green, blue and opacity.
        extent: left, right, bottom and top of the plane that they lie in, whose unit is as long in both directions.
    """

    pixels: np.ndarray
    extent: tuple[float, float, float, float]

    @classmethod
    def of(cls, kept: Kept, colours: Colormap | None) -> "Cloud":
        """Draw the latents of an arm by class, in one colour if there are no colours of classes or it has no labels."""
        finite = np.isfinite(kept.latents).all(1)
        points = kept.latents[finite]
        low, high = (points.min(0), points.max(0)) if len(points) else np.zeros((2, 2))
        unit = 1.1 * ((high - low) / BOX).max() or 1.0  # of the plane, in an inch
        corner = (low + high - unit * BOX) / 2
        renderer = RendererAgg(*(FINE * BOX).round(), FINE)
        gc = renderer.new_gc()
        gc.set_linewidth(0)
        dot = MarkerStyle("o")
        size = Affine2D().scale(dot_size(len(kept.latents)) ** 0.5 * FINE / 72)
        labels = np.zeros(len(points), int) if kept.labels is None or colours is None else kept.labels[finite]
        for k in np.unique(labels):
            colour = to_rgba("C0") if colours is None or kept.labels is None else colours(int(k))
            pixels = (points[labels == k] - corner) / unit * FINE
            renderer.draw_markers(gc, dot.get_path(), dot.get_transform() + size, Outline(pixels), IdentityTransform(), colour)
        (left, bottom), (right, top) = corner, corner + unit * BOX
        return cls(np.array(renderer.buffer_rgba()), (left, right, bottom, top))


def draw(files: Mapping[str, Path], parts: Path, path: Path) -> None:
    """Draw the pictures of all arms, of their first seeds, from each one's pictures.npz.

    Args:
        files: by arm.
        parts: the folder of what the page shows of the arms, which are numbered: 00-images.png, 00-samples.png, 00-latents.svg.
        path: of the gallery, which is written as PNG, SVG and PDF.
    """
    arms = {arm: Kept.of(file) for arm, file in files.items()}
    classes = max((int(kept.labels.max()) + 1 for kept in arms.values() if kept.labels is not None), default=0)
    colours = class_colours(classes) if classes else None
    clouds = {arm: Cloud.of(kept, colours) for arm, kept in arms.items()}
    for i, kept in enumerate(arms.values()):
        for name, sheet in (("images", kept.pairs), ("samples", kept.draws)):
            imsave(parts / f"{i:02d}-{name}.png", np.clip(sheet, 0, 1), cmap="gray", vmin=0, vmax=1)
    _latents(list(clouds.values()), colours, parts)
    gallery(arms, clouds, colours, path)


def gallery(arms: Mapping[str, Kept], clouds: Mapping[str, Cloud], colours: Colormap | None, path: Path) -> None:
    """Draw a row per arm: test images and below them as decoded, decoded draws from the prior, and latents."""
    names = {arm: arm.replace("_", "\n") for arm in arms}
    left = 0.25 + text_width((line for name in names.values() for line in name.splitlines()), NAMES)
    middle, right = left + 4.6, left + 7.35  # where the columns begin
    figure = new_figure(right + BOX[0] + 0.2, ROW * len(arms) + (0.4 if colours is None else 0.72))
    figure.suppressComposite = True  # else all images are one picture of the figure's size in SVG and PDF
    inches: dict[str, Any] = {"transform": figure.dpi_scale_trans, "va": "center"}
    for row, (arm, kept) in enumerate(arms.items()):
        bottom = ROW * (len(arms) - row) - BOX[1]
        tops = [_show(figure, kept.pairs, left, bottom, 4.4), _show(figure, kept.draws, middle, bottom, 2.0)]
        _plane(axes_at(figure, right, bottom, *BOX), clouds[arm])
        figure.text(left - 0.1, bottom + BOX[1] / 2, names[arm], ha="right", fontsize=NAMES, **inches)
        if row == 0:
            titles = ("test images and their reconstructions", "decoded prior draws", "posterior means (z1, z2)")
            centres = (left + 2.2, middle + 1, right + BOX[0] / 2)
            for title, x, y in zip(titles, centres, (*tops, bottom + BOX[1]), strict=True):
                figure.text(x, y + 0.15, title, ha="center", fontsize=12, **inches)
    if colours is not None:
        bar = axes_at(figure, right, ROW * len(arms) + 0.34, BOX[0], 0.1)
        _classes(figure, bar, colours, "horizontal")
        bar.xaxis.tick_top()
        figure.text(right - 0.1, ROW * len(arms) + 0.39, "class", ha="right", fontsize=10, **inches)
    save(figure, path)


def _show(figure: Figure, sheet: np.ndarray, left: float, bottom: float, width: float) -> float:
    """Draw a picture in the middle of a box of a row, in inches, without axes, and return where its top is."""
    unit = min(width / sheet.shape[1], BOX[1] / sheet.shape[0])
    across, up = unit * sheet.shape[1], unit * sheet.shape[0]
    place = Bbox.from_bounds(left + (width - across) / 2, bottom + (BOX[1] - up) / 2, across, up)
    shown = BboxImage(TransformedBbox(place, figure.dpi_scale_trans), cmap="gray", norm=Normalize(0, 1), interpolation="nearest")
    shown.set_data(sheet)
    figure.add_artist(shown)
    return float(place.y1)


def _latents(clouds: list[Cloud], colours: Colormap | None, folder: Path) -> None:
    """Draw the latents of every arm for the page, with a bar of the classes: on a phone an arm fills the screen."""
    figure = new_figure(BOX[0] + 1.1, BOX[1] + 0.36)
    ax = axes_at(figure, 0.6, 0.28, *BOX)
    if colours is not None:
        _classes(figure, axes_at(figure, 0.7 + BOX[0], 0.28, 0.1, BOX[1]), colours, "vertical")
    shown = _plane(ax, clouds[0])
    for i, cloud in enumerate(clouds):  # one figure for all: axes and ticks take longer to make than to draw
        shown.set_data(cloud.pixels)
        shown.set_extent(cloud.extent)
        save_svg(figure, folder / f"{i:02d}-latents.svg")


def _plane(ax: Axes, cloud: Cloud) -> AxesImage:
    """Draw a cloud, which fills its axes, with few ticks."""
    ax.tick_params(labelsize=8)
    ax.locator_params(nbins=4, steps=(1, 2, 5, 10))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")  # without a power of ten at the axis's end, where the next arm is
    return ax.imshow(cloud.pixels, extent=cloud.extent, aspect="auto")


def _classes(figure: Figure, ax: Axes, colours: Colormap, orientation: str) -> None:
    """Draw a bar of the classes."""
    scale = ScalarMappable(Normalize(-0.5, colours.N - 0.5), colours)
    bar = figure.colorbar(scale, cax=ax, orientation=orientation, ticks=class_ticks(colours.N))
    bar.ax.tick_params(labelsize=8)


def _images(levels: np.ndarray) -> np.ndarray:
    """Return the levels of a pictures.npz as images on [0, 1], (N, C, H, W)."""
    return kept_images(levels) / 255
