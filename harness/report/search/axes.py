"""What the figures of a search share: axes as parameters need them, a value axis that a few diverged trials do not squash."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from harness.queue import SearchTrial
from harness.report.search.results import way
from harness.report.search.text import say
from harness.study import SCORES
from harness.study.space import Parameter

GOOD, ENDED, BROKEN, BAD, BEST, BEST_FILL = "#2b6cb0", "0.62", "#d9822b", "#b3261e", "#1c2330", "#f2b705"
SHADES = "viridis_r"  # the better, the darker
FEWEST = 4  # values, below which none counts as an outlier
PLAIN = "{x:,.10g}"
SHORT, HALVES = 200, (1, 2, 5)  # from end to end of a logarithmic axis; where its ticks lie then
REACH, SQUASHED = 3.0, 1 / 3  # how far below the lower quartile a value may lie, and from what share on the rest is squashed


@dataclass(frozen=True)
class Window:
    """What an axis of values shows. `cut`: how many lie outside; `worst`: the farthest of them."""

    low: float
    high: float
    cut: int
    worst: float

    def put(self, values: Any) -> np.ndarray:
        """Values, those outside moved to the edge."""
        return np.clip(np.asarray(values, dtype=float), self.low, self.high)

    def place(self, value: float) -> float:
        """A value as a place from 0 to 1 between the bounds."""
        return float((self.put(value) - self.low) / (self.high - self.low)) if self.high > self.low else 0.5

    def outside(self, values: Any) -> np.ndarray:
        """Which values lie outside."""
        return (np.asarray(values) < self.low) | (np.asarray(values) > self.high)

    def note(self, objective: str) -> str:
        """What to say of those outside, or nothing."""
        if not self.cut:
            return ""
        many = f"{self.cut} values lie beyond its edge (triangles), the farthest"
        beyond = many if self.cut > 1 else "a value lies beyond its edge (triangle),"
        return f"axis cut: {beyond} at {self.worst:,.{SCORES[objective].digits}f}"


def window(values: Sequence[float], also: Sequence[float], objective: str) -> Window:
    """Bounds that hold all values, or all but those so bad that the others would fill less than a third of the axis.

    `also`: values that are shown too, but by which the bounds are not set.
    """
    sign = way(objective)
    good = np.sort(sign * _finite(values if len(values) else also))
    every = np.append(good, sign * _finite(also))
    if not len(good):
        return Window(0, 1, 0, np.nan)
    top, quarter = good[-1], np.quantile(good, 0.25, method="higher")
    fence = quarter - REACH * (top - quarter)
    inside = every[every >= fence]
    squashed = np.ptp(inside) < SQUASHED * np.ptp(every)
    if len(good) < FEWEST or top == quarter or not squashed:
        inside = every
    low, high = sorted((sign * float(inside.min()), sign * float(inside.max())))
    cut = every[(every < inside.min())]
    return Window(low, high, len(cut), sign * float(cut.min()) if len(cut) else np.nan)


def _finite(values: Sequence[float]) -> np.ndarray:
    kept = np.asarray(values, dtype=float)
    return kept[np.isfinite(kept)]


def scatter_values(ax: Axes, w: Window, objective: str, x: Any, y: Any, **how: Any) -> None:
    """Dots, and triangles at the edge for values outside the window."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    out = w.outside(y)
    shown = {k: v for k, v in how.items() if k != "marker"}
    colours = how.get("c")
    for mask, marker in ((~out, how.get("marker", "o")), (out, "v" if way(objective) > 0 else "^")):
        if mask.any():
            each = {"c": np.asarray(colours)[mask]} if colours is not None else {}
            ax.scatter(x[mask], w.put(y)[mask], marker=marker, **{**shown, **each})
            shown.pop("label", None)


def dress_values(ax: Axes, w: Window, objective: str, which: Literal["x", "y"] = "y") -> None:
    """Label and bounds of an axis of values, with the note on what lies outside."""
    arrow = {"higher": "higher is better", "lower": "lower is better"}[SCORES[objective].better]
    pad = 0.06 * (w.high - w.low) or 0.05 * abs(w.high) or 1
    ax.set(**{f"{which}label": f"{SCORES[objective].label}\n({arrow})", f"{which}lim": (w.low - pad, w.high + pad)})
    if max(abs(w.low), abs(w.high)) >= 10_000:
        (ax.xaxis if which == "x" else ax.yaxis).set_major_formatter(PLAIN)


def note_cut(ax: Axes, words: str) -> None:
    """Say above the axes what lies outside of them."""
    ax.set_title(words, fontsize=8.5, color="0.4", loc="left")


def at(p: Parameter, a: SearchTrial) -> float:
    """Where a trial lies on a parameter's axis; choices are spread a little, each trial always alike."""
    if p.choices:
        return p.choices.index(a.params[p.name]) + 0.45 * ((a.number * 0.618034) % 1 - 0.5)
    return float(a.params[p.name])


def unit(p: Parameter, x: float) -> float:
    """A place on a parameter's axis as one from 0 to 1."""
    if p.choices:
        return x / max(1, len(p.choices) - 1)
    low, high, x = np.log([p.low, p.high, x]) if p.log else (p.low, p.high, x)
    return float((x - low) / (high - low))


def dress(ax: Axes, p: Parameter, which: Literal["x", "y"] = "x") -> None:
    """Name, scale, bounds and ticks of a parameter's axis."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    ax.set(**{f"{which}label": p.name})
    if p.choices:
        names = [say(c) for c in p.choices]
        turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        axis.set_ticks(range(len(names)), names, **(turned if which == "x" and sum(map(len, names)) > 16 else {}))
        ax.set(**{f"{which}lim": (-0.5, len(p.choices) - 0.5)})
        return
    if p.log:
        ax.set(**{f"{which}scale": "log", f"{which}lim": (p.low * (p.low / p.high) ** 0.05, p.high * (p.high / p.low) ** 0.05)})
        log_ticks(axis, p.low, p.high)
        return
    pad = 0.05 * (p.high - p.low)
    ax.set(**{f"{which}lim": (p.low - pad, p.high + pad)})
    axis.set_major_locator(MaxNLocator(5, integer=p.whole))


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Few labels on a logarithmic axis, and in plain numbers where it is short."""
    if high / low <= SHORT:
        axis.set_major_locator(LogLocator(subs=HALVES))
        axis.set_major_formatter(PLAIN)
    axis.set_minor_formatter(NullFormatter())


def integers(axis: Axis) -> None:
    """Ticks at whole numbers."""
    axis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))


def soften(ax: Axes) -> None:
    """A light grid behind everything."""
    ax.grid(color="0.92")
    ax.set_axisbelow(True)


def star(ax: Axes, x: float, y: float) -> None:
    """The best trial."""
    ax.scatter([x], [y], marker="*", s=190, color=BEST_FILL, edgecolors=BEST, linewidths=0.9, zorder=6, label="best")


def shade(w: Window, objective: str) -> tuple[mpl.colors.Normalize, mpl.colors.Colormap]:
    """Colours of values: the better, the darker."""
    edges = (w.low, w.high) if w.high > w.low else (w.low - 0.5, w.high + 0.5)
    return mpl.colors.Normalize(*edges), mpl.colormaps[SHADES if way(objective) > 0 else SHADES.removesuffix("_r")]
