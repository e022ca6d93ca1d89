"""What the figures of a search share: axes of parameters, and axes of values that a few diverged trials do not squash."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from harness.queue import SearchTrial
from harness.report.search.tables import parameter_text
from harness.scores import Score
from harness.study.space import Parameter

GOOD, ENDED, BROKEN, BAD, BEST, BEST_FILL = "#2b6cb0", "0.62", "#d9822b", "#b3261e", "#1c2330", "#f2b705"
SHADES = "viridis_r"  # better values are darker
FEWEST = 4  # with fewer values none counts as an outlier
PLAIN = "{x:,.10g}"
SHORT = 200  # ratio of the ends of a logarithmic axis up to which it has ticks at HALVES
HALVES = (1, 2, 5)
REACH = 3.0  # how far below the lower quartile a value may lie, in distances from there to the best
SQUASHED = 1 / 3  # share of the axis below which the other values would be squashed


@dataclass(frozen=True)
class Window:
    """The part of the values that an axis shows.

    Attributes:
        low, high: the bounds of the axis.
        cut: how many values lie outside.
        worst: the farthest of them.
    """

    low: float
    high: float
    cut: int
    worst: float

    def clip(self, values: Any) -> np.ndarray:
        """Return the values, those outside moved to the edge."""
        clipped: np.ndarray = np.clip(np.asarray(values, dtype=float), self.low, self.high)
        return clipped

    def fraction(self, value: float) -> float:
        """Return where a value lies between the bounds, from 0 to 1."""
        return float((self.clip(value) - self.low) / (self.high - self.low)) if self.high > self.low else 0.5

    def outside(self, values: Any) -> np.ndarray:
        """Return for each value whether it lies outside."""
        return (np.asarray(values) < self.low) | (np.asarray(values) > self.high)

    def note(self, objective: Score) -> str:
        """Return a sentence on the values outside, or an empty text if there are none."""
        if not self.cut:
            return ""
        several = f"{self.cut} values lie beyond its edge (triangles), the farthest"
        beyond = several if self.cut > 1 else "a value lies beyond its edge (triangle),"
        return f"axis cut: {beyond} at {objective.text(self.worst)}"


def window(values: Sequence[float], extra: Sequence[float], objective: Score) -> Window:
    """Return bounds that hold all values, or all but those so bad that the others would fill less than a third of the axis.

    `extra` are values that are shown too, but by which the bounds are not set.
    """
    sign = objective.sign
    judged = np.sort(sign * _finite(values if len(values) else extra))
    all_values = np.append(judged, sign * _finite(extra))
    if not len(judged):
        return Window(0, 1, 0, np.nan)
    top, quarter = judged[-1], np.quantile(judged, 0.25, method="higher")
    fence = quarter - REACH * (top - quarter)
    inside = all_values[all_values >= fence]
    squeezed = np.ptp(inside) < SQUASHED * np.ptp(all_values)
    if len(judged) < FEWEST or top == quarter or not squeezed:
        inside = all_values
    low, high = sorted((sign * float(inside.min()), sign * float(inside.max())))
    cut = all_values[(all_values < inside.min())]
    return Window(low, high, len(cut), sign * float(cut.min()) if len(cut) else np.nan)


def _finite(values: Sequence[float]) -> np.ndarray:
    """Return the values that are finite, as an array."""
    array = np.asarray(values, dtype=float)
    finite: np.ndarray = array[np.isfinite(array)]
    return finite


def scatter_values(ax: Axes, w: Window, objective: Score, x: Any, y: Any, **style: Any) -> None:
    """Draw a dot per value, and a triangle at the edge for a value outside the window."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    outside = w.outside(y)
    common = {k: v for k, v in style.items() if k != "marker"}
    colours = style.get("c")
    for mask, marker in ((~outside, style.get("marker", "o")), (outside, "v" if objective.sign > 0 else "^")):
        if mask.any():
            colour = {"c": np.asarray(colours)[mask]} if colours is not None else {}
            ax.scatter(x[mask], w.clip(y)[mask], marker=marker, **{**common, **colour})
            common.pop("label", None)


def style_value_axis(ax: Axes, w: Window, objective: Score, which: Literal["x", "y"] = "y") -> None:
    """Set label and bounds of an axis of values."""
    arrow = {"higher": "higher is better", "lower": "lower is better"}[objective.better]
    pad = 0.06 * (w.high - w.low) or 0.05 * abs(w.high) or 1
    ax.set(**{f"{which}label": f"{objective.label}\n({arrow})", f"{which}lim": (w.low - pad, w.high + pad)})
    if max(abs(w.low), abs(w.high)) >= 10_000:
        (ax.xaxis if which == "x" else ax.yaxis).set_major_formatter(PLAIN)


def note_outside(ax: Axes, words: str) -> None:
    """Write above the axes what lies outside of them."""
    ax.set_title(words, fontsize=8.5, color="0.4", loc="left")


def position(p: Parameter, trial: SearchTrial) -> float:
    """Return where a trial lies on a parameter's axis. Choices are spread a little, every trial always by the same."""
    if p.choices:
        return p.choices.index(trial.params[p.name]) + 0.45 * ((trial.number * 0.618034) % 1 - 0.5)
    return float(trial.params[p.name])


def unit_position(p: Parameter, x: float) -> float:
    """Return a position on a parameter's axis as one from 0 to 1."""
    if p.choices:
        return x / max(1, len(p.choices) - 1)
    low, high, x = np.log([p.low, p.high, x]) if p.log else (p.low, p.high, x)
    return float((x - low) / (high - low))


def style_axis(ax: Axes, p: Parameter, which: Literal["x", "y"] = "x") -> None:
    """Set name, scale, bounds and ticks of a parameter's axis."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    ax.set(**{f"{which}label": p.name})
    if p.choices:
        names = [parameter_text(c) for c in p.choices]
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
    """Put few labels on a logarithmic axis, in plain numbers if it is short."""
    if high / low <= SHORT:
        axis.set_major_locator(LogLocator(subs=HALVES))
        axis.set_major_formatter(PLAIN)
    axis.set_minor_formatter(NullFormatter())


def whole_ticks(axis: Axis) -> None:
    """Put ticks at whole numbers."""
    axis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))


def add_grid(ax: Axes) -> None:
    """Draw a light grid behind everything."""
    ax.grid(color="0.92")
    ax.set_axisbelow(True)


def mark_best(ax: Axes, x: float, y: float) -> None:
    """Draw a star for the best trial."""
    ax.scatter([x], [y], marker="*", s=190, color=BEST_FILL, edgecolors=BEST, linewidths=0.9, zorder=6, label="best")


def colour_scale(w: Window, objective: Score) -> tuple[mpl.colors.Normalize, mpl.colors.Colormap]:
    """Return the colours of values, darker for better ones, as a scale and a map."""
    edges = (w.low, w.high) if w.high > w.low else (w.low - 0.5, w.high + 0.5)
    return mpl.colors.Normalize(*edges), mpl.colormaps[SHADES if objective.sign > 0 else SHADES.removesuffix("_r")]
