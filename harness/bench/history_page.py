"""The history of benchmarks as one page without any other file, a figure and a table per benchmark; and as a table for programs."""

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from harness.bench.history import MachineHistory, Series

PAGE, TABLE = "history.html", "history.csv"
INK, LINE = "#0a0b0c", "#0d0e0f"  # stand for colours of the page, which are others in the dark
MOST_LABELS = 7  # of commits below a figure that stand side by side
SCALE_FROM_0 = 2.0  # times the smallest value that the largest is: below that an axis from 0 would hide what changed


def write(machines: Sequence[MachineHistory], folder: Path) -> Path:
    """Write page and table into a folder and return the page's path."""
    from jinja2 import Environment, PackageLoader

    folder.mkdir(parents=True, exist_ok=True)
    environment = Environment(loader=PackageLoader("harness.bench", "."), autoescape=True)
    environment.filters |= {"digits": digits, "percent": lambda share: f"{100 * share:+.1f} %"}
    page = environment.get_template(PAGE).render(
        machines=machines,
        figures={(m.machine, s.name): figure(s) for m in machines for s in m.series},
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    (folder / PAGE).write_text(page, encoding="utf-8")
    (folder / TABLE).write_text(table(machines), encoding="utf-8")
    return folder / PAGE


def digits(value: float) -> str:
    """Return a number with three significant digits, and all digits of its whole part.

    >>> digits(0.01234), digits(4.0565), digits(1234.5)
    ('0.0123', '4.06', '1,234')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def table(machines: Sequence[MachineHistory]) -> str:
    """Return one row per machine, benchmark and commit as CSV, times in milliseconds for a unit."""
    rows = [
        {"machine": machine.machine, "benchmark": series.name, "unit": series.unit, **asdict(point)}
        for machine in machines
        for series in machine.series
        for point in series.points
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def figure(series: Series) -> str:
    """Return a drawing of the medians in the order of the commits, with their quartiles, as SVG in the colours of the page."""
    import matplotlib as mpl

    from harness.figures.axes import new_figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": series.name, "font.size": 10, "text.color": INK}):
        drawing = new_figure(4.4, 2.6)
        ax = drawing.subplots()
        points, at = series.points, range(len(series.points))
        medians = [p.median for p in points]
        spread = [[p.median - p.low for p in points], [p.high - p.median for p in points]]
        ax.plot(at, medians, color=LINE, linewidth=1, alpha=0.5)
        ax.errorbar(at, medians, yerr=spread, fmt="o", color=LINE, markersize=5, elinewidth=1.6, capsize=3)
        every = -(-len(points) // (3 * MOST_LABELS))
        gap, turned = ("\n", 0) if len(points) <= MOST_LABELS else (" ", 90)
        labels = [f"{p.commit[:7]}{gap}{p.date[5:10]}" for p in points]
        ax.set_xticks(list(at)[::every], labels[::every], rotation=turned, fontsize=8)
        ax.set_xlim(-0.5, len(points) - 0.5)
        if max(p.high for p in points) > SCALE_FROM_0 * min(p.low for p in points):
            ax.set_ylim(bottom=0)
        ax.set_ylabel(f"ms per {series.unit}", color=INK)
        ax.tick_params(colors=INK)
        ax.grid(axis="y", color=INK, alpha=0.15, linewidth=0.8)
        for name, spine in ax.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color(INK)
        out = io.StringIO()
        drawing.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    _, _, drawn = out.getvalue().partition("<svg ")
    label = html.escape(f"{series.name}: ms per {series.unit} over {len(points)} commits")
    return f'<svg role="img" aria-label="{label}" {drawn}'.replace(INK, "currentColor").replace(LINE, "var(--accent)")
