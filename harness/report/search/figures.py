"""Figures of a search over time and by objective: its history, its learning curves, what matters, and what quality costs."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from harness.figures import new_figure
from harness.report.ablation import figures
from harness.report.search import space_figures
from harness.report.search.axes import (
    BAD,
    BEST,
    BROKEN,
    ENDED,
    GOOD,
    dress_values,
    integers,
    log_ticks,
    note_cut,
    scatter_values,
    soften,
    window,
)
from harness.report.search.results import SearchResults, way
from harness.report.search.text import spread

MOST = 15  # trials of a front that are named
LOOKS: Mapping[str, dict[str, Any]] = {
    "COMPLETE": {"color": GOOD, "alpha": 0.75, "linewidth": 1.1, "label": "complete"},
    "PRUNED": {"color": ENDED, "linewidth": 0.9, "label": "pruned where the cross is"},
    "FAIL": {"color": BAD, "linewidth": 0.9, "label": "failed where the cross is"},
}
UNDER_WAY: Mapping[str, Any] = {"color": GOOD, "linestyle": ":", "linewidth": 1.1, "label": "under way"}


def history(s: SearchResults, path: Path) -> bool:
    """Every trial's value by its number, and the best so far as a step line; one panel per objective."""
    if not any(np.isfinite(s.value(a, o)) for a in s.history for o in s.search.objectives):
        return False
    several = len(s.search.objectives)
    figure = new_figure(8, 4.4 if several == 1 else 3.1 * several)
    axes = figure.subplots(several, 1, squeeze=False)
    for ax, objective in zip(axes.flat, s.search.objectives, strict=True):
        _history(ax, s, objective)
    axes.flat[-1].set_xlabel("trial number")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=110)
    return True


def _history(ax: Axes, s: SearchResults, objective: str) -> None:
    complete, pruned = s.those("COMPLETE"), s.those("PRUNED")
    w = window([s.value(a, objective) for a in complete], [s.value(a, objective) for a in pruned], objective)
    for trials, how in (
        (pruned, {"marker": "x", "color": ENDED, "s": 26, "linewidths": 1.2, "label": "pruned (its last value)"}),
        ([a for a in complete if a.feasible], {"color": GOOD, "s": 26, "label": "complete"}),
        (
            [a for a in complete if not a.feasible],
            {"facecolors": "none", "edgecolors": BROKEN, "s": 30, "label": "breaks a constraint"},
        ),
    ):
        known = [a for a in trials if np.isfinite(s.value(a, objective))]
        if known:
            scatter_values(ax, w, objective, [a.number for a in known], [s.value(a, objective) for a in known], **how)
    failed = [a.number for a in s.those("FAIL")]
    dress_values(ax, w, objective)
    note_cut(ax, w.note(objective))
    if failed:
        ax.plot(failed, [0.02] * len(failed), "P", color=BAD, markersize=7, transform=ax.get_xaxis_transform(), label="failed")
    able = [a for a in complete if a.feasible]
    if able:
        best = way(objective) * np.maximum.accumulate([way(objective) * s.value(a, objective) for a in able])
        x = [*(a.number for a in able), s.history[-1].number]
        ax.step(x, w.put([*best, best[-1]]), where="post", color=BEST, linewidth=1.4, label="best so far")
    last = s.history[-1].number
    ax.set_xlim(-0.5 - 0.02 * last, last + 0.5 + 0.02 * last)
    integers(ax.xaxis)
    soften(ax)


def curves(s: SearchResults, path: Path) -> bool:
    """Every trial's reports, where trials are pruned by them; a pruned one ends in a cross."""
    told = [a for a in s.history if a.reports]
    if s.search.pruner is None or not any(len(a.reports) > 1 for a in told):
        return False
    objective, shift = s.search.quality, 1 if s.over_seeds else 0
    late = [a.reports[step] for a in told if a.state == "COMPLETE" for step in sorted(a.reports)[len(a.reports) // 2 :]]
    w = window(late, [v for a in told for v in a.reports.values()], objective)  # the climb of the first epochs may be cut
    top = s.best[0].number if s.best else None
    figure = new_figure(8, 4.6)
    ax = figure.subplots()
    dress_values(ax, w, objective)
    note_cut(ax, f"axis cut: some values lie {'below' if way(objective) > 0 else 'above'} it" if w.cut else "")
    for a in sorted(told, key=lambda a: (a.number == top, a.state == "COMPLETE")):
        steps = sorted(a.reports)
        x, y = [step + shift for step in steps], [a.reports[step] for step in steps]
        look = LOOKS.get(a.state, UNDER_WAY)
        if a.number == top:
            look = {"color": BEST, "linewidth": 2.2, "label": f"best, #{a.number}"}
        ax.plot(x, y, **look)
        if a.state in ("PRUNED", "FAIL"):
            scatter_values(ax, w, objective, x[-1:], y[-1:], marker="x", color=look["color"], s=26)
        elif len(x) == 1:
            ax.plot(x, y, "o", color=look["color"], markersize=4)
    ax.set_xlabel("seed, in the order they are trained" if s.over_seeds else "epoch")
    integers(ax.xaxis)
    soften(ax)
    handles, labels = ax.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(list(once.values()), list(once), loc="outside lower center", ncols=len(once), frameon=False)
    figure.savefig(path, dpi=110)
    return True


def importances(s: SearchResults, path: Path) -> bool:
    """A bar per parameter."""
    if len(s.importances) < 2:
        return False
    names = list(s.importances)[::-1]
    shares = [s.importances[n] for n in names]
    figure = new_figure(8, 1.1 + 0.38 * len(names))
    ax = figure.subplots()
    bars = ax.barh(names, shares, color=GOOD, height=0.62)
    ax.bar_label(bars, [f"{x:.0%}" for x in shares], padding=4, fontsize=9)
    ax.set(xlim=(0, 1.12 * max(shares)), xlabel="share in what sets the best trials apart from all (PED-ANOVA)")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)
    figure.savefig(path, dpi=110)
    return True


def pareto(s: SearchResults, path: Path) -> bool:
    """Quality against each cost: all complete trials, those on the front joined by what can be had for a cost at most."""
    costs = [o for o in s.search.objectives if o != s.search.quality]
    if not costs or not s.those("COMPLETE"):
        return False
    figure = new_figure(max(9, 6.2 * len(costs)), 6)
    axes = figure.subplots(1, len(costs), squeeze=False)
    for ax, cost in zip(axes.flat, costs, strict=True):
        _pareto(ax, s, cost, joined=len(costs) == 1)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.canvas.draw()
    named = spread(s.best, MOST)
    for ax, cost in zip(axes.flat, costs, strict=True):
        w, v = (window([s.value(a, o) for a in s.those("COMPLETE")], (), o) for o in (cost, s.search.quality))
        points = np.array([[w.put(s.value(a, cost)), v.put(s.value(a, s.search.quality))] for a in named]).reshape(-1, 2)
        figures.label(ax, [f"#{a.number}" for a in named], [(0.1, 0.1, 0.1)] * len(named), points)
    figure.savefig(path, dpi=110)
    return True


def _pareto(ax: Axes, s: SearchResults, cost: str, *, joined: bool) -> None:
    quality, complete = s.search.quality, s.those("COMPLETE")
    w = window([s.value(a, quality) for a in complete], (), quality)
    across = window([s.value(a, cost) for a in complete], (), cost)
    on_front = {a.number for a in s.best}
    for trials, how in (
        ([a for a in complete if a.feasible and a.number not in on_front], {"color": ENDED, "s": 26, "label": "complete"}),
        (
            [a for a in complete if not a.feasible],
            {"facecolors": "none", "edgecolors": BROKEN, "s": 30, "label": "breaks a constraint"},
        ),
        (list(s.best), {"color": GOOD, "s": 44, "edgecolors": "black", "linewidths": 0.7, "zorder": 4, "label": "front"}),
    ):
        if trials:
            x, y = (across.put([s.value(a, cost) for a in trials]), [s.value(a, quality) for a in trials])
            scatter_values(ax, w, quality, x, y, **how)
    dress_values(ax, across, cost, "x")
    dress_values(ax, w, quality)
    note_cut(ax, w.note(quality))
    if across.low > 0 and across.high > 10 * across.low:
        ax.set_xscale("log")
        ax.set_xlim(across.low / 1.4, across.high * 1.4)
        log_ticks(ax.xaxis, across.low, across.high)
    if joined and len(s.best) > 1:
        xy = sorted((float(across.put(s.value(a, cost))), float(w.put(s.value(a, quality)))) for a in s.best)
        higher = way(cost) > 0  # the steps are the best quality of trials whose cost is at least as good
        corners = [(one[0], two[1]) if higher else (two[0], one[1]) for one, two in pairwise(xy)]
        line = [*(p for two in zip(xy, corners, strict=False) for p in two), xy[-1]]
        ax.plot(*zip(*line, strict=True), color=GOOD, linewidth=1.2, zorder=3)
    for c in s.search.constraints:
        if c.score == cost:
            bound = c.at_least if c.at_most is None else c.at_most
            ax.axvline(bound or 0, color=BROKEN, linestyle="--", linewidth=1, label="constraint")
    soften(ax)


Figure = tuple[str, Callable[[SearchResults, Path], bool], str]

FIGURES: Mapping[str, Figure] = {
    "search_pareto": (
        "What quality costs",
        pareto,
        "The front holds the trials that no other beats in every objective, each with its number. Its steps say which quality can "
        "be had at a cost.",
    ),
    "search_history": (
        "Value by trial",
        history,
        "In the order that points were asked for. A search that works finds its better points late; one whose line is still rising "
        "at the end wants more trials.",
    ),
    "search_curves": (
        "Learning curves",
        curves,
        "What the pruner saw. A cross, or a triangle where the axis is cut, is where it ended a trial.",
    ),
    "search_importances": (
        "What matters",
        importances,
        "How much each parameter tells the best tenth of the complete trials (at least five; of several objectives those near the "
        "front) from all, by PED-ANOVA. It says nothing of directions, and a parameter with a narrow range matters little in it.",
    ),
    "search_slices": (
        "Value against each parameter",
        space_figures.slices,
        "The darker, the later. A best value at the edge of a range says that the range is too narrow.",
    ),
    "search_contour": (
        "Two parameters at once",
        space_figures.contour,
        "The two that matter most, as far as that is known. Colours between trials pass over all other parameters: with few trials "
        "a sketch, not a map.",
    ),
    "search_parallel": (
        "All parameters at once",
        space_figures.parallel,
        "A line per trial: the better, the darker, and the best golden; pruned ones are grey and end before the axis of values.",
    ),
}


def draw(s: SearchResults, into: Path) -> dict[str, tuple[str, str]]:
    """Every figure that there is something to draw for, as NAME.png. Returns title and caption by name."""
    return {
        name: (title, caption)
        for name, (title, prior_samples, caption) in FIGURES.items()
        if prior_samples(s, into / f"{name}.png")
    }
