"""The figures of an ablation's scores: by arm and seed, and rate against distortion.

Each function writes PNG, SVG and PDF, or a part of a figure for the page. An arm looks the same in all (figures/palette.py).
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.markers import MarkerStyle

from harness.figures.axes import axes_at, new_figure, text_width
from harness.figures.palette import INK, Style, families
from harness.report.saved_figures import lay_out, save, save_svg
from harness.scores import Score
from harness.scores.rows import KL, SQUARED_ERROR

# Directions from a point in which its label is tried, in this order.
AROUND = ((1, 0), (0, 1), (-1, 0), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))
LEADER = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 5}
REACH = (12, 18, 25, 34, 46, 60)  # distances from its point at which it is tried, in pixels


def scores(table: pd.DataFrame, looks: Mapping[str, Style], shown: Sequence[Score], path: Path) -> None:
    """Draw a panel for each of these scores: a dot per seed, and the arm's mean as a bar across them."""
    columns = 2 if len(shown) in (2, 4) else 3
    rows = max(1, -(-len(shown) // columns))
    figure = new_figure(12, _height(looks) * rows)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for ax, score in zip(axes.flat, shown, strict=False):
        _by_arm(ax, table, looks, score)
        ax.locator_params(axis="x", nbins=5)
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    save(figure, path)


def score_panel(table: pd.DataFrame, looks: Mapping[str, Style], score: Score, path: Path) -> None:
    """Draw the panel of one score for the page, as SVG, so narrow that a phone shows it whole."""
    left, height = 0.2 + text_width(looks, 10), _height(looks)
    width = max(4.2, left + max(1.7, text_width([score.label], 10) - 0.1))  # however long the names are
    figure = new_figure(width, height)
    ax = axes_at(figure, left, 0.65, width - left - 0.2, height - 0.7)
    _by_arm(ax, table, looks, score)
    ax.locator_params(axis="x", nbins=3)
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

    values = table[score.key]
    ax.set_xlabel(f"{score.label}\n({score.better} is better)" if score.better else score.label)
    # np.random, which seaborn moves dots apart by, is left as it was: the same scores give the same picture.
    state = np.random.get_state()
    np.random.seed(0)
    colours = {arm: style.colour for arm, style in looks.items()}
    sns.stripplot(
        x=values, y=table["arm"], order=list(looks), hue=table["arm"], palette=colours, size=5, jitter=0.15, legend=False, ax=ax
    )
    np.random.set_state(state)
    for dots, style in zip(ax.collections, looks.values(), strict=True):  # a strip plot has one mark for all
        mark = MarkerStyle(style.mark)
        dots.set_paths([mark.get_path().transformed(mark.get_transform())])
    rows = np.arange(len(looks))
    ax.vlines(values.groupby(table["arm"]).mean()[list(looks)], rows - 0.3, rows + 0.3, color=INK, linewidth=1.5)
    ax.set_yticks(rows, list(looks))
    ax.set_ylim(len(looks) - 0.5, -0.5)
    ax.set_ylabel("")
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
    lay_out(figure)
    label(ax, [labels[arm] for arm in looks], mean.to_numpy())
    save(figure, path)


def _arm_in_plane(ax: Axes, points: np.ndarray, style: Style) -> None:
    """Draw the trials of an arm as small dots, (N, 2), and their mean as a large mark."""
    ax.scatter(points[:, 0], points[:, 1], color=style.colour, s=18, alpha=0.65, linewidths=0)
    ax.plot(*points.mean(0), style.mark, color=style.colour, markeredgecolor=INK, markersize=7)


def label(ax: Axes, texts: Sequence[str], points: np.ndarray) -> None:
    """Put a text beside each point, where it covers no point, line or other text if possible; far ones get a thin leader.

    Args:
        ax: the axes, with everything else in their place.
        texts: one per point.
        points: in the data's coordinates, (N, 2).
    """
    lines = [ax.transData.transform(line.get_xydata()) for line in ax.lines]
    on_lines = [a + (b - a) * t for xy in lines for a, b in pairwise(xy) for t in np.linspace(0, 1, 25)]
    dots = [xy for dots in ax.collections for xy in ax.transData.transform(dots.get_offsets())]
    pixels = ax.transData.transform(points)
    occupied = [(x - 5, y - 5, x + 5, y + 5) for x, y in pixels]
    occupied += [(x - 1, y - 1, x + 1, y + 1) for x, y in (*on_lines, *dots)]
    legend = ax.get_legend()
    if legend:
        occupied.append(legend.get_window_extent().extents)
    for text, point, (x, y) in zip(texts, points, pixels, strict=True):
        measured = ax.text(0, 0, text, fontsize=9)
        width, height = measured.get_window_extent().size
        measured.remove()
        offsets = [(r * dx + width / 2 * np.sign(dx), r * dy + height / 2 * np.sign(dy)) for r in REACH for dx, dy in AROUND]
        boxes = np.array([(x + dx - width / 2, y + dy - height / 2, x + dx + width / 2, y + dy + height / 2) for dx, dy in offsets])
        within_axes = (ax.bbox.min < boxes[:, :2]).all(1) & (boxes[:, 2:] < ax.bbox.max).all(1)
        best = int(np.argmin(_overlaps(boxes, np.array(occupied)) + 1000 * ~within_axes))
        occupied.append(tuple(boxes[best]))
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
            arrowprops=LEADER if best >= len(AROUND) else None,
        )


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how many of the others each box overlaps, (N,); boxes are (N, 4): left, bottom, right, top."""
    within = (boxes[:, None, :2] < others[:, 2:]) & (others[:, :2] < boxes[:, None, 2:])
    return np.asarray(within.all(2).sum(1))
