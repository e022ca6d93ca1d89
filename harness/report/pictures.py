"""The figures of a study: scores by arm and seed, and every arm's pictures side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from harness import figures
from harness.study import SCORES


def scores(table: pd.DataFrame, arms: Sequence[str], metrics: Sequence[str], path: Path) -> None:
    """A panel per score that differs at all: a dot per seed, the arm's mean as a bar across them."""
    metrics = [m for m in metrics if table[m].nunique() > 1]
    columns = 2 if len(metrics) in (2, 4) else 3
    rows = max(1, -(-len(metrics) // columns))
    height = 0.9 + 0.32 * len(arms)
    figure, axes = plt.subplots(rows, columns, figsize=(12, height * rows), layout="constrained", sharey=True, squeeze=False)
    for ax, metric in zip(axes.flat, metrics, strict=False):
        sns.stripplot(table, x=metric, y="arm", hue="arm", order=arms, hue_order=arms, ax=ax, size=5, jitter=0.15, legend=False)
        for i, arm in enumerate(arms):
            mean = table.loc[table["arm"] == arm, metric].mean()
            ax.plot([mean, mean], [i - 0.3, i + 0.3], color="black", linewidth=1.5)
        way = {"lower": " (lower is better)", "higher": " (higher is better)", "": ""}[SCORES[metric].better]
        ax.set(xlabel=SCORES[metric].label + way, ylabel="")
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
    for ax in axes.flat[len(metrics) :]:
        ax.set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def gallery(files: Mapping[str, Path], path: Path) -> None:
    """A row per arm, its first seed: test images as decoded (the originals on top), draws from the prior, latents by class."""
    figure = plt.figure(figsize=(12, 2.3 * len(files) + 0.4), layout="constrained")
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
    plt.close(figure)
