"""The figures of a comparison: by score and arm the mean of the paired differences with its interval."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.figures.axes import new_figure
from harness.figures.palette import INK, Style, styles
from harness.report.comparison import Comparison, Row
from harness.report.inline import inline
from harness.report.saved_figures import save_svg


def panels(comparison: Comparison, folder: Path) -> list[str]:
    """Draw a panel for every score whose differences have an interval, as SVG files, and return them as elements for a page."""
    looks = styles(list(dict.fromkeys(row.arm for row in comparison.rows)))
    drawn = []
    for label in dict.fromkeys(row.score.label for row in comparison.rows):
        rows = [r for r in comparison.rows if r.score.label == label and r.paired and np.isfinite(r.paired.low) and not r.same]
        if rows:
            file = folder / f"{re.sub(r'[^a-z0-9]+', '-', rows[0].score.key)}.svg"
            _panel(rows, [looks[row.arm] for row in rows], file)
            drawn.append(inline(file, f"B - A of {label} by arm, with 95 % intervals"))
    return drawn


def _panel(rows: Sequence[Row], looks: Sequence[Style], path: Path) -> None:
    """Draw a row per arm: the mean difference and its interval about a line at 0."""
    figure = new_figure(4.2, 1.05 + 0.32 * len(rows))
    ax = figure.subplots()
    for i, (row, look) in enumerate(zip(rows, looks, strict=True)):
        if row.paired:
            ax.plot([row.paired.low, row.paired.high], [i, i], color=look.colour, linewidth=2)
            ax.plot(row.paired.mean, i, look.mark, color=look.colour, markersize=6)
    ax.axvline(0, color=INK, linewidth=1)
    ax.set_yticks(range(len(rows)), [row.arm for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    score = rows[0].score
    ax.set_xlabel(f"{score.label}, B - A" + (f"\n({score.better} is better)" if score.better else ""))
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    save_svg(figure, path)
