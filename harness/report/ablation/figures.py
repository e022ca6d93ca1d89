"""The figures of an ablation: scores by arm and seed, rate against distortion, and the pictures of all arms side by side.

Each function writes PNG, SVG and PDF, or a part of a figure for the page. An arm looks the same in all (figures/palette.py).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from harness.figures.axes import kept_images, new_figure, scatter, show_images, tile
from harness.figures.palette import INK, Style, families
from harness.report.saved_figures import save, save_svg
from harness.scores import Score
from harness.scores.rows import KL, SQUARED_ERROR

# Directions from a point in which its label is tried, in this order.
AROUND = ((1, 0), (0, 1), (-1, 0), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))
REACH = (12, 18, 25, 34, 46, 60)  # distances from its point at which it is tried, in pixels


def scores(table: pd.DataFrame, looks: Mapping[str, Style], shown: Sequence[Score], path: Path) -> None:
    """Draw a panel for each of these scores: a dot per seed, and the arm's mean as a bar across them."""
    columns = 2 if len(shown) in (2, 4) else 3
    rows = max(1, -(-len(shown) // columns))
    figure = new_figure(12, _height(looks) * rows)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for ax, score in zip(axes.flat, shown, strict=False):
        _by_arm(ax, table, looks, score)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    save(figure, path)


def score_panel(table: pd.DataFrame, looks: Mapping[str, Style], score: Score, path: Path) -> None:
    """Draw the panel of one score for the page, as SVG, so narrow that a phone shows it whole."""
    figure = new_figure(4.2, _height(looks))
    _by_arm(figure.subplots(), table, looks, score)
    save_svg(figure, path)


def _height(arms: Collection[str]) -> float:
    """Return the height of a panel in inches."""
    return 1.05 + 0.32 * len(arms)


def load_seaborn() -> None:
    """Import what draws dots, which takes a second."""
    import seaborn  # noqa: F401  # for its own sake


def _by_arm(ax: Axes, table: pd.DataFrame, looks: Mapping[str, Style], score: Score) -> None:
    """Draw a row per arm: a dot per seed, and a bar across them at their mean."""
    import seaborn as sns  # takes a second, which a report whose figures stand does without

    for i, (arm, style) in enumerate(looks.items()):
        values = table.loc[table["arm"] == arm, score.key]
        # np.random, which seaborn moves dots apart by, is left as it was: the same scores give the same picture.
        state = np.random.get_state()
        np.random.seed(0)
        look = {"size": 5, "jitter": 0.15, "color": style.colour, "marker": style.mark}
        sns.stripplot(x=values, y=np.full(len(values), i), orient="h", native_scale=True, ax=ax, **look)
        np.random.set_state(state)
        ax.plot([values.mean()] * 2, [i - 0.3, i + 0.3], color=INK, linewidth=1.5)
    ax.set_yticks(range(len(looks)), list(looks))
    ax.set_ylim(len(looks) - 0.5, -0.5)
    ax.set(xlabel=f"{score.label}\n({score.better} is better)" if score.better else score.label, ylabel="")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)


def rate_distortion(table: pd.DataFrame, looks: Mapping[str, Style], path: Path) -> None:
    """Draw the nats that encodings take against the squared error of what is decoded from them.

    There is a small dot per trial and a labelled one per arm. Arms of one family, the first word of "mse beta=4", are joined in
    order of their rate.
    """
    rate, distortion = KL.key, SQUARED_ERROR.key
    mean = table.groupby("arm")[[rate, distortion]].mean().loc[list(looks)]
    kin = families(list(looks))
    figure = new_figure(7.5, 5.2)
    ax = figure.subplots()
    labels: dict[str, str] = {}
    for family, members in kin.items():
        by_rate = mean.loc[members].sort_values(rate)
        if joined := len(members) > 1:
            middle = looks[members[len(members) // 2]].colour
            ax.plot(by_rate[rate], by_rate[distortion], color=middle, label=family, zorder=1)
        for arm in members:
            _arm_in_plane(ax, table.loc[table["arm"] == arm, [rate, distortion]].to_numpy(), looks[arm])
            labels[arm] = arm.removeprefix(f"{family} ") if joined else arm
    if table[rate].min() > 0 and table[rate].max() > 10 * table[rate].min():
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
    ax.margins(0.12)
    ax.set(xlabel="rate: KL(q(z|x) || p(z)) on the test set, nats per image", ylabel="distortion: squared error per image")
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
    if len(kin) < len(looks):
        ax.legend(frameon=False, loc="upper right")
    figure.canvas.draw()
    label(ax, [labels[arm] for arm in looks], mean.to_numpy())
    save(figure, path)


def _arm_in_plane(ax: Axes, points: np.ndarray, style: Style) -> None:
    """Draw the trials of an arm as small dots, (N, 2), and their mean as a large mark."""
    ax.scatter(points[:, 0], points[:, 1], color=style.colour, s=18, alpha=0.65, linewidths=0)
    ax.plot(*points.mean(0), style.mark, color=style.colour, markeredgecolor=INK, markersize=7)


def label(ax: Axes, texts: Sequence[str], points: np.ndarray) -> None:
    """Put a text beside each point, where it covers no point, line or other text if possible; far ones get a thin leader.

    Args:
        ax: the axes, with everything else drawn.
        texts: one per point.
        points: in the data's coordinates, (N, 2).
    """
    lines = [ax.transData.transform(line.get_xydata()) for line in ax.lines]
    on_lines = [a + (b - a) * t for xy in lines for a, b in pairwise(xy) for t in np.linspace(0, 1, 25)]
    dots = [xy for dots in ax.collections for xy in ax.transData.transform(dots.get_offsets())]
    pixels = ax.transData.transform(points)
    occupied = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in pixels]
    occupied += [Bbox.from_bounds(x - 1, y - 1, 2, 2) for x, y in (*on_lines, *dots)]
    legend = ax.get_legend()
    if legend:
        occupied.append(legend.get_window_extent())
    for text, point, (x, y) in zip(texts, points, pixels, strict=True):
        measured = ax.text(0, 0, text, fontsize=9)
        width, height = measured.get_window_extent().size
        measured.remove()
        offsets = [(r * dx + width / 2 * np.sign(dx), r * dy + height / 2 * np.sign(dy)) for r in REACH for dx, dy in AROUND]
        boxes = [Bbox.from_bounds(x + dx - width / 2, y + dy - height / 2, width, height) for dx, dy in offsets]
        within_axes = [ax.bbox.contains(*box.min) and ax.bbox.contains(*box.max) for box in boxes]
        best = int(
            np.argmin([box.count_overlaps(occupied) + 1000 * (not inside) for box, inside in zip(boxes, within_axes, strict=True)])
        )
        occupied.append(boxes[best])
        offset = (offsets[best][0] * 72 / ax.figure.dpi, offsets[best][1] * 72 / ax.figure.dpi)
        ax.annotate(
            text,
            point,
            offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            color=INK,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 5},
        )


def gallery(files: Mapping[str, Path], path: Path) -> None:
    """Draw a row per arm, of its first seed, from its pictures.npz in `files`.

    It has test images and below them as decoded, decoded draws from the prior, and latents, by class if the images have labels.
    """
    width, height = 12, 2.3 * len(files) + 0.4
    names = {arm: arm.replace("_", "\n") for arm in files}
    longest = max(len(line) for name in names.values() for line in name.splitlines())
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # to lay out so many axes takes a sixth of all the time
    margins = {"left": (0.3 + 0.09 * longest) / width, "right": 0.98, "bottom": 0.35 / height, "top": 1 - 0.4 / height}
    grid = figure.add_gridspec(len(files), 3, width_ratios=(2.5, 1.15, 1.6), wspace=0.1, hspace=0.15, **margins)
    for row, (arm, file) in enumerate(files.items()):
        kept = Kept.of(file)
        left, middle, right = (figure.add_subplot(grid[row, c]) for c in range(3))
        show_images(left, kept.pairs)
        left.set_ylabel(names[arm], rotation=0, ha="right", va="center", fontsize=11)
        show_images(middle, kept.draws)
        right.tick_params(labelsize=8)
        scatter(figure, right, kept.latents, kept.labels)
        if row == 0:
            left.set_title("test images and their reconstructions")
            middle.set_title("decoded prior draws")
            right.set_title(f"posterior means{'' if kept.labels is None else ' by class'} (z1, z2)")
    save(figure, path)


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
            return cls(tile(pair, len(pair) // 2), tile(draws, 4), arrays["latents"], arrays.get("labels"))


def arm_pictures(file: Path, folder: Path, name: str) -> None:
    """Draw the pictures of one arm for the page: NAME-images.png and NAME-samples.png, pixel by pixel, and NAME-latents.svg."""
    from matplotlib.image import imsave

    kept = Kept.of(file)
    imsave(folder / f"{name}-images.png", np.clip(kept.pairs, 0, 1), cmap="gray", vmin=0, vmax=1)
    imsave(folder / f"{name}-samples.png", np.clip(kept.draws, 0, 1), cmap="gray", vmin=0, vmax=1)
    figure = new_figure(3.6, 2.6)
    ax = figure.subplots()
    ax.tick_params(labelsize=8)
    scatter(figure, ax, kept.latents, kept.labels)
    save_svg(figure, folder / f"{name}-latents.svg")


def _images(levels: np.ndarray) -> np.ndarray:
    """Return the levels of a pictures.npz as images on [0, 1], (N, C, H, W)."""
    return kept_images(levels) / 255
