"""The figures of an ablation: scores by arm and seed, rate against distortion, and the pictures of all arms side by side."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from harness.figures.axes import kept_images, new_figure, scatter, show_images, tile
from harness.scores import Score
from harness.scores.rows import KL, SQUARED_ERROR

# Directions from a point in which its label is tried, in this order.
AROUND = ((1, 0), (0, 1), (-1, 0), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))
REACH = (12, 18, 25, 34, 46, 60)  # distances from its point at which it is tried, in pixels


def scores(table: pd.DataFrame, arms: Sequence[str], shown: Sequence[Score], path: Path) -> None:
    """Draw a panel for each of these scores: a dot per seed, and the arm's mean as a bar across them."""
    columns = 2 if len(shown) in (2, 4) else 3
    rows = max(1, -(-len(shown) // columns))
    height = 0.9 + 0.32 * len(arms)
    figure = new_figure(12, height * rows)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for ax, score in zip(axes.flat, shown, strict=False):
        _by_arm(ax, table, arms, score.key)
        ax.set(xlabel=f"{score.label} ({score.better} is better)" if score.better else score.label, ylabel="")
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    figure.savefig(path, dpi=110)


def load_seaborn() -> None:
    """Import what draws dots, which takes a second."""
    import seaborn  # noqa: F401  # for its own sake


def _by_arm(ax: Axes, table: pd.DataFrame, arms: Sequence[str], metric: str) -> None:
    """Draw a row per arm: a dot per seed, and a bar across them at their mean."""
    import seaborn as sns  # takes a second, which a report whose figures stand does without

    sns.stripplot(table, x=metric, y="arm", hue="arm", order=arms, hue_order=arms, ax=ax, size=5, jitter=0.15, legend=False)
    for i, arm in enumerate(arms):
        mean = table.loc[table["arm"] == arm, metric].mean()
        ax.plot([mean, mean], [i - 0.3, i + 0.3], color="black", linewidth=1.5)
    ax.set(ylabel="")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)


def rate_distortion(table: pd.DataFrame, arms: Sequence[str], path: Path) -> None:
    """Draw the nats that encodings take against the squared error of what is decoded from them.

    There is a small dot per trial and a labelled one per arm. Arms of one family, the first word of "mse beta=4", are joined in
    order of their rate.
    """
    rate, distortion = KL.key, SQUARED_ERROR.key
    mean = table.groupby("arm")[[rate, distortion]].mean().loc[list(arms)]
    families: dict[str, list[str]] = {}
    for arm in mean.sort_values(rate).index:
        families.setdefault(arm.split(" ")[0], []).append(arm)
    figure = new_figure(10, 6.5)
    ax = figure.subplots()
    labels: dict[str, str] = {}
    colours: dict[str, tuple[float, float, float]] = {}
    import seaborn as sns  # as above

    palette = sns.color_palette("tab10" if len(families) <= 10 else "husl", len(families))
    for (family, family_arms), colour in zip(families.items(), palette, strict=True):
        trials, line = table[table["arm"].isin(family_arms)], mean.loc[family_arms]
        ax.scatter(trials[rate], trials[distortion], color=colour, s=14, alpha=0.5, linewidths=0)
        joined = len(family_arms) > 1
        ax.plot(line[rate], line[distortion], "-o", color=colour, markeredgecolor="black", label=family if joined else None)
        labels |= {arm: arm.removeprefix(f"{family} ") if joined else arm for arm in family_arms}
        colours |= dict.fromkeys(family_arms, colour)
    if table[rate].min() > 0 and table[rate].max() > 10 * table[rate].min():
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
    ax.margins(0.12)
    ax.set(
        xlabel="rate: KL(q(z|x) || p(z)) on the test set, nats per image",
        ylabel="distortion: squared error of the decoded mean, summed over pixels",
        title="what codes cost against what they keep (lower left is better)",
    )
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
    if len(families) < len(arms):
        ax.legend(frameon=False, loc="upper right")
    figure.canvas.draw()
    label(ax, [labels[arm] for arm in arms], [colours[arm] for arm in arms], mean.to_numpy())
    figure.savefig(path, dpi=110)


def label(ax: Axes, texts: Sequence[str], colours: Sequence[tuple[float, float, float]], points: np.ndarray) -> None:
    """Put a text beside each point, where it covers no point, line or other text if possible; far ones get a thin leader.

    Args:
        ax: the axes, with everything else drawn.
        texts: one per point.
        colours: of the texts.
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
    for text, colour, point, (x, y) in zip(texts, colours, points, pixels, strict=True):
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
            color=colour,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 5},
        )


def gallery(files: Mapping[str, Path], path: Path) -> None:
    """Draw a row per arm, of its first seed, from its pictures.npz in `files`.

    It has test images and below them as decoded, decoded draws from the prior, and latents, by class if the images have labels.
    """
    figure = new_figure(12, 2.3 * len(files) + 0.4)
    grid = figure.add_gridspec(len(files), 3, width_ratios=(2.5, 1.15, 1.6))
    for row, (arm, file) in enumerate(files.items()):
        with np.load(file, allow_pickle=False) as arrays:
            pair = np.concatenate([_images(arrays["original"]), _images(arrays["reconstruction"])])
            draws = _images(arrays["samples"])
            latents, labels = arrays["latents"], arrays.get("labels")
        left, middle, right = (figure.add_subplot(grid[row, c]) for c in range(3))
        show_images(left, tile(pair, len(pair) // 2))
        left.set_ylabel(arm.replace("_", "\n"), rotation=0, ha="right", va="center", fontsize=11)
        show_images(middle, tile(draws, 4))
        right.tick_params(labelsize=8)
        scatter(figure, right, latents, labels)
        if row == 0:
            left.set_title("test images and their reconstructions")
            middle.set_title("decoded prior draws")
            right.set_title(f"posterior means{'' if labels is None else ' by class'} (z1, z2)")
    figure.savefig(path, dpi=110)


def _images(levels: np.ndarray) -> np.ndarray:
    """Return the levels of a pictures.npz as images on [0, 1], (N, C, H, W)."""
    return kept_images(levels) / 255
