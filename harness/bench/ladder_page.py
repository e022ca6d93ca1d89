"""A ladder for people: a table on the terminal, a chart, and a section of docs/performance.md."""

import math
import re
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from harness.bench.ladder import Ladder, LadderRow
from harness.bench.machine import BATCH, SIDE, bytes_per_step, flop_per_sample
from harness.bench.rungs import JAX, OWN, TRAINERS
from harness.figures.axes import new_figure

PAGE, TITLE = "performance.md", "# Performance\n"
HEADINGS = (
    "rung",
    "ms/step, wall",
    "ms/step, CPU",
    "images/s",
    "times the reference loop [quartiles]",
    "of fp32 product rate",
    "GFLOP/step",
    "MB/step",
    "compile, s",
)
PAGE_ONLY = (1, 6, 7)  # columns that the terminal leaves out: wall time, FLOP and bytes
BUSY = 0.05  # share of waiting above which the page says that the machine was busy
LOADED = 0.5  # load average above which it says so when several threads run
USUAL, OURS, PEER = "0.6", "tab:blue", "tab:orange"


def slug(ladder: Ladder) -> str:
    """Return the machine's name in a form for files and anchors."""
    words = f"{ladder.device} {_threads(ladder)}" if ladder.by_threads else ladder.device
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def show(ladder: Ladder, console: Console) -> None:
    """Print the columns that fit a terminal, and what was measured on what."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, heading in enumerate(HEADINGS):
        if i not in PAGE_ONLY:
            table.add_column(heading, justify="right" if i else "left", no_wrap=not i)
    for row in ladder.rows:
        if not row.reason:
            table.add_row(*(cell for i, cell in enumerate(_cells(row)) if i not in PAGE_ONLY))
    console.print(table)
    for row in ladder.rows:
        if row.reason:
            console.print(f"{row.name}: {row.reason}", highlight=False, markup=False)
    console.print(f"{_legend(ladder)}\n{_provenance(ladder)}", highlight=False, markup=False, soft_wrap=True)


def write(ladder: Ladder, folder: Path) -> Path:
    """Put the ladder into its machine's section of the page in `folder`, and its chart beside the page; return the page's path.

    All other text stays as it is.

    Raises:
        ValueError: the page has the beginning of the section but not its end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, name = folder / PAGE, slug(ladder)
    chart(ladder, folder / f"performance-{name}.png")
    start, end = f"<!-- ladder:{name} -->", f"<!-- /ladder:{name} -->"
    section = f"{start}\n{_section(ladder, name)}\n{end}"
    text = page.read_text(encoding="utf-8") if page.exists() else TITLE
    before, marker, rest = text.partition(start)
    if marker:
        _, closed, after = rest.partition(end)
        if not closed:
            raise ValueError(f"{page}: {start} has no {end}")
        text = before + section + after
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    scratch = page.with_suffix(".part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(page)
    return page


def chart(ladder: Ladder, path: Path) -> None:
    """Draw a bar per rung: how many times faster than the reference loop it is, the quartiles as a line on its end."""
    rows = [r for r in ladder.rows if not r.reason]
    figure = new_figure(8, 1.3 + 0.3 * len(rows))
    ax = figure.subplots()
    ratios = [r.ratio for r in rows]
    errors = [[r.ratio - r.low for r in rows], [r.high - r.ratio for r in rows]]
    colours = [_colour(r) for r in rows]
    bars = ax.barh(
        [r.name for r in rows], ratios, xerr=errors, color=colours, height=0.7, error_kw={"elinewidth": 1, "ecolor": "0.2"}
    )
    ax.bar_label(bars, [_digits(r) for r in ratios], padding=5, fontsize=9)
    ax.invert_yaxis()
    ax.axvline(1, color="0.3", linestyle="--", linewidth=1, zorder=0)
    ax.set_xlim(0, 1.1 * max(r.high for r in rows))
    ax.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    for label, colour in {"the usual loop, one thing added at a time": USUAL, "this harness": OURS, "others": PEER}.items():
        if colour in colours:
            ax.barh([rows[0].name], [0], color=colour, label=label)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    ax.set_xlabel("times faster than the reference loop, per trial (higher is better)")
    ax.set_title(f"{ladder.device}{f', {_threads(ladder)}' if ladder.by_threads else ''}\n{ladder.versions}", fontsize=10)
    figure.savefig(path, dpi=110)


def _colour(row: LadderRow) -> str:
    """Return the colour of a rung: of another library, of this harness, or of the usual loop."""
    if row.name == JAX or row.name in TRAINERS:
        return PEER
    return OURS if row.lanes > 1 or row.name in OWN else USUAL


def _cells(row: LadderRow) -> tuple[str, ...]:
    """Return the texts of a row, one per heading."""
    if row.reason:
        return (row.name, row.reason, *("",) * (len(HEADINGS) - 2))
    return (
        row.name,
        _digits(row.wall_ms),
        _digits(row.cpu_ms),
        f"{row.images_per_s:,.0f}",
        f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]",
        f"{row.peak:.0%}",
        _digits(row.flop / 1e9),
        _digits(row.bytes / 1e6),
        "" if row.compile_s is None else f"{row.compile_s:.0f}",
    )


def _digits(value: float) -> str:
    """Return a number with three significant digits, and all digits of its whole part."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _section(ladder: Ladder, name: str) -> str:
    """Return the machine's section of the page, in Markdown."""
    lines = [f"## {ladder.device}, {_threads(ladder)}" if ladder.by_threads else f"## {ladder.device}", ""]
    lines += [f"![How many times faster than the reference loop each rung is](performance-{name}.png)", ""]
    lines += [f"| {' | '.join(HEADINGS)} |", f"|---|{'---:|' * (len(HEADINGS) - 1)}"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in ladder.rows]
    return "\n".join([*lines, "", _legend(ladder), "", _provenance(ladder)])


def _legend(ladder: Ladder) -> str:
    """Return what the columns mean, in words."""
    clock = "CPU time" if ladder.by_cpu else "wall time"
    return (
        f"A step is one batch of {BATCH} MNIST images through the reference model; times are per step of one trial, medians of "
        f"{ladder.rounds} rounds in which all rungs took turns. Ratios, images/s and rates are by {clock}. The rate is that of "
        f"fp32 products of {SIDE}x{SIDE} matrices in the same run, {ladder.gflops:,.0f} GFLOP/s. One trial's step is "
        f"{BATCH * flop_per_sample() / 1e6:.1f} MFLOP and moves at least {bytes_per_step() / 1e6:.1f} MB."
    )


def _provenance(ladder: Ladder) -> str:
    """Return when, on what and at which load the ladder was measured, in words."""
    before, after = ladder.load
    facts = (
        f"{ladder.date}, {_threads(ladder)}, {ladder.versions}, commit {ladder.commit}, load average {before:.1f} to {after:.1f}."
    )
    if ladder.by_cpu and ladder.waited > BUSY:
        facts += f" The machine was busy: wall time was {ladder.waited:.0%} above CPU time, so take ratios rather than times."
    if ladder.by_threads and not ladder.by_cpu and before > LOADED:
        facts += " The machine was busy: threads then wait for one another, and neither times nor ratios hold for a quiet one."
    return facts


def _threads(ladder: Ladder) -> str:
    """Return the number of threads in words."""
    return f"{ladder.threads} thread{'s' if ladder.threads > 1 else ''}"
