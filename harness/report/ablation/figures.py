"""The figures of a study: scores by arm and seed, rate against distortion, and every arm's pictures side by side."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from harness import figures
from harness.figures import new_figure
from harness.study import SCORES

AROUND = ((1, 0), (0, 1), (-1, 0), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))  # where a label goes, by turns
REACH = (12, 18, 25, 34, 46, 60)  # and how far from its point, in pixels


def scores(table: pd.DataFrame, arms: Sequence[str], metrics: Sequence[str], path: Path) -> None:
    """A panel per score that differs at all: a dot per seed, the arm's mean as a bar across them."""
    metrics = [m for m in metrics if table[m].nunique() > 1]
    columns = 2 if len(metrics) in (2, 4) else 3
    rows = max(1, -(-len(metrics) // columns))
    height = 0.9 + 0.32 * len(arms)
    figure = new_figure(12, height * rows)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for ax, metric in zip(axes.flat, metrics, strict=False):
        _by_arm(ax, table, arms, metric)
        way = {"lower": " (lower is better)", "higher": " (higher is better)", "": ""}[SCORES[metric].better]
        ax.set(xlabel=SCORES[metric].label + way, ylabel="")
    for ax in axes.flat[len(metrics) :]:
        ax.set_axis_off()
    figure.savefig(path, dpi=110)


def _by_arm(ax: Axes, table: pd.DataFrame, arms: Sequence[str], metric: str) -> None:
    """A row per arm: a dot per seed, a bar across them at their mean."""
    sns.stripplot(table, x=metric, y="arm", hue="arm", order=arms, hue_order=arms, ax=ax, size=5, jitter=0.15, legend=False)
    for i, arm in enumerate(arms):
        mean = table.loc[table["arm"] == arm, metric].mean()
        ax.plot([mean, mean], [i - 0.3, i + 0.3], color="black", linewidth=1.5)
    ax.set(ylabel="")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)


def rate_distortion(table: pd.DataFrame, arms: Sequence[str], path: Path) -> None:
    """Nats that codes spend against the error of what is decoded from them: a small dot per trial, a labelled one per arm.

    Arms of one family, the first word of "mse beta=4", are joined in order of their rate.
    """
    rate, distortion = "test/kl", "test/squared_error"
    mean = table.groupby("arm")[[rate, distortion]].mean().loc[list(arms)]
    families: dict[str, list[str]] = {}
    for arm in mean.sort_values(rate).index:
        families.setdefault(arm.split(" ")[0], []).append(arm)
    figure = new_figure(10, 6.5)
    ax = figure.subplots()
    labels: dict[str, str] = {}
    colours: dict[str, tuple[float, float, float]] = {}
    palette = sns.color_palette("tab10" if len(families) <= 10 else "husl", len(families))
    for (family, mine), colour in zip(families.items(), palette, strict=True):
        trials, line = table[table["arm"].isin(mine)], mean.loc[mine]
        ax.scatter(trials[rate], trials[distortion], color=colour, s=14, alpha=0.5, linewidths=0)
        joined = len(mine) > 1
        ax.plot(line[rate], line[distortion], "-o", color=colour, markeredgecolor="black", label=family if joined else None)
        labels |= {arm: arm.removeprefix(f"{family} ") if joined else arm for arm in mine}
        colours |= dict.fromkeys(mine, colour)
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
    """A text at each point (N, 2), moved to where it covers no point, line or other text; far ones get a thin leader."""
    lines = [ax.transData.transform(line.get_xydata()) for line in ax.lines]
    dense = [a + (b - a) * t for xy in lines for a, b in pairwise(xy) for t in np.linspace(0, 1, 25)]
    dots = [xy for dots in ax.collections for xy in ax.transData.transform(dots.get_offsets())]
    at = ax.transData.transform(points)
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in at]
    taken += [Bbox.from_bounds(x - 1, y - 1, 2, 2) for x, y in (*dense, *dots)]
    legend = ax.get_legend()
    if legend:
        taken.append(legend.get_window_extent())
    for text, colour, point, (x, y) in zip(texts, colours, points, at, strict=True):
        measured = ax.text(0, 0, text, fontsize=9)
        width, height = measured.get_window_extent().size
        measured.remove()
        spots = [(r * dx + width / 2 * np.sign(dx), r * dy + height / 2 * np.sign(dy)) for r in REACH for dx, dy in AROUND]
        boxes = [Bbox.from_bounds(x + dx - width / 2, y + dy - height / 2, width, height) for dx, dy in spots]
        inside = [ax.bbox.contains(*box.min) and ax.bbox.contains(*box.max) for box in boxes]
        best = int(np.argmin([box.count_overlaps(taken) + 1000 * (not within) for box, within in zip(boxes, inside, strict=True)]))
        taken.append(boxes[best])
        offset = (spots[best][0] * 72 / ax.figure.dpi, spots[best][1] * 72 / ax.figure.dpi)
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
    """A row per arm, its first seed: test images as decoded (the originals on top), draws from the prior, latents by class."""
    figure = new_figure(12, 2.3 * len(files) + 0.4)
    grid = figure.add_gridspec(len(files), 3, width_ratios=(2.5, 1.15, 1.6))
    for row, (arm, file) in enumerate(files.items()):
        with np.load(file, allow_pickle=False) as kept:
            side = round(kept["original"].shape[-1] ** 0.5)
            pair = np.concatenate([kept["original"], kept["reconstruction"]]).reshape(-1, side, side) / 255
            draws, latents, labels = kept["samples"] / 255, kept["latents"], kept["labels"]
        left, middle, right = (figure.add_subplot(grid[row, c]) for c in range(3))
        figures.show_images(left, figures.tile(pair, len(pair) // 2))
        left.set_ylabel(arm.replace("_", "\n"), rotation=0, ha="right", va="center", fontsize=11)
        figures.show_images(middle, figures.tile(draws, 4))
        dots = figures.scatter(right, latents, labels)
        right.tick_params(labelsize=8)
        figure.colorbar(dots, ax=right, ticks=range(int(labels.max()) + 1)).ax.tick_params(labelsize=8)
        if row == 0:
            left.set_title("test images and their reconstructions")
            middle.set_title("decoded prior draws")
            right.set_title("posterior means by class (z1, z2)")
    figure.savefig(path, dpi=110)
