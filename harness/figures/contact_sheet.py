"""A sheet of some images of a data set, split by split."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from harness import paths
from harness.data import Data, Split
from harness.figures.axes import new_figure, show_images, tile

COLUMNS = 16
ROWS = {"train": 6, "validation": 2, "test": 2}
WIDTH = 9.0  # inches
DPI = 150


def contact_sheet(data: Data) -> Figure:
    """Draw images at even distances of each split."""
    _, height, width = data.image_shape
    splits = (data.train, data.validation, data.test)
    rows = [min(ROWS[split.name], -(-len(split) // COLUMNS)) for split in splits]
    row_height = WIDTH / COLUMNS * height / width
    figure = new_figure(WIDTH, sum(rows) * row_height + 0.4 * len(splits))
    axes = figure.subplots(len(splits), 1, height_ratios=rows)
    for ax, split, count in zip(axes, splits, rows, strict=True):
        images = _evenly(split, count * COLUMNS).unflatten(-1, data.image_shape).numpy()
        show_images(ax, tile(images.astype(np.float32) / 255, COLUMNS))
        ax.set_title(f"{split.name}: {len(images)} of {len(split):,}", fontsize=8, loc="left")
    return figure


def write_contact_sheet(data: Data) -> Path:
    """Write the sheet of a data set as a PNG file, in mlruns/data, and return its path."""
    file = paths.mlruns() / "data" / f"{data.name}-{data.digest[:12]}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(data).savefig(file, dpi=DPI)
    return file


def _evenly(split: Split, most: int) -> torch.Tensor:
    """Return the levels of at most so many images at even distances, (n, P)."""
    return split.levels[torch.linspace(0, len(split) - 1, min(most, len(split))).round().long()]
