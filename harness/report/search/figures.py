"""Figures of a search over time and by objective: its history, its learning curves, what matters, and what quality costs."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from harness.figures.axes import new_figure
from harness.report.ablation import figures
from harness.report.saved_figures import lay_out, save
from harness.report.search import space_figures
from harness.report.search.axes import (
    BAD,
    BEST,
    BROKEN,
    ENDED,
    GOOD,
    add_grid,
    log_ticks,
    note_outside,
    scatter_values,
    style_value_axis,
    whole_ticks,
    window,
)
from harness.report.search.results import SearchResults
from harness.report.search.tables import spread
from harness.scores import Score

MOST_LABELLED = 15  # trials of a front that are labelled with their number
STYLES: Mapping[str, dict[str, Any]] = {
    "COMPLETE": {"color": GOOD, "alpha": 0.75, "linewidth": 1.1, "label": "complete"},
    "PRUNED": {"color": ENDED, "linewidth": 0.9, "label": "pruned where the cross is"},
    "FAIL": {"color": BAD, "linewidth": 0.9, "label": "failed where the cross is"},
}
UNDER_WAY: Mapping[str, Any] = {"color": GOOD, "linestyle": ":", "linewidth": 1.1, "label": "under way"}


def history(results: SearchResults, path: Path) -> bool:
    """Draw every trial's value by its number, and the best so far as a step line; one panel per objective.

    Return whether there is anything to draw.
    """
    if not any(np.isfinite(results.value(trial, o)) for trial in results.history for o in results.objectives):
        return False
    several = len(results.objectives)
    figure = new_figure(8, 4.4 if several == 1 else 3.1 * several)
    axes = figure.subplots(several, 1, squeeze=False)
    for ax, objective in zip(axes.flat, results.objectives, strict=True):
        _history(ax, results, objective)
    axes.flat[-1].set_xlabel("trial number")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    save(figure, path)
    return True


def _history(ax: Axes, results: SearchResults, objective: Score) -> None:
    """Draw the panel of an objective."""
    complete, pruned = results.in_state("COMPLETE"), results.in_state("PRUNED")
    w = window(
        [results.value(trial, objective) for trial in complete], [results.value(trial, objective) for trial in pruned], objective
    )
    for trials, style in (
        (pruned, {"marker": "x", "color": ENDED, "s": 26, "linewidths": 1.2, "label": "pruned (its last value)"}),
        ([trial for trial in complete if trial.feasible], {"color": GOOD, "s": 26, "label": "complete"}),
        (
            [trial for trial in complete if not trial.feasible],
            {"facecolors": "none", "edgecolors": BROKEN, "s": 30, "label": "breaks a constraint"},
        ),
    ):
        finite = [trial for trial in trials if np.isfinite(results.value(trial, objective))]
        if finite:
            scatter_values(
                ax, w, objective, [trial.number for trial in finite], [results.value(trial, objective) for trial in finite], **style
            )
    failed = [trial.number for trial in results.in_state("FAIL")]
    style_value_axis(ax, w, objective)
    note_outside(ax, w.note(objective))
    if failed:
        ax.plot(failed, [0.02] * len(failed), "P", color=BAD, markersize=7, transform=ax.get_xaxis_transform(), label="failed")
    feasible = [trial for trial in complete if trial.feasible]
    if feasible:
        best = objective.sign * np.maximum.accumulate([objective.sign * results.value(trial, objective) for trial in feasible])
        x = [*(trial.number for trial in feasible), results.history[-1].number]
        ax.step(x, w.clip([*best, best[-1]]), where="post", color=BEST, linewidth=1.4, label="best so far")
    last = results.history[-1].number
    ax.set_xlim(-0.5 - 0.02 * last, last + 0.5 + 0.02 * last)
    whole_ticks(ax.xaxis)
    add_grid(ax)


def curves(results: SearchResults, path: Path) -> bool:
    """Draw every trial's reports, if trials are pruned by them; a pruned one ends in a cross.

    Return whether there is anything to draw.
    """
    reporting = [trial for trial in results.history if trial.reports]
    if results.search.pruner is None or not any(len(trial.reports) > 1 for trial in reporting):
        return False
    objective, shift = results.search.quality, 1 if results.over_seeds else 0
    late_values = [
        trial.reports[step]
        for trial in reporting
        if trial.state == "COMPLETE"
        for step in sorted(trial.reports)[len(trial.reports) // 2 :]
    ]
    # The bounds are set by the later half of the reports: the climb of the first epochs may be cut off.
    w = window(late_values, [v for trial in reporting for v in trial.reports.values()], objective)
    best = results.best[0].number if results.best else None
    figure = new_figure(8, 4.6)
    ax = figure.subplots()
    style_value_axis(ax, w, objective)
    note_outside(ax, f"axis cut: some values lie {'below' if objective.sign > 0 else 'above'} it" if w.cut else "")
    for trial in sorted(reporting, key=lambda trial: (trial.number == best, trial.state == "COMPLETE")):
        steps = sorted(trial.reports)
        x, y = [step + shift for step in steps], [trial.reports[step] for step in steps]
        style = STYLES.get(trial.state, UNDER_WAY)
        if trial.number == best:
            style = {"color": BEST, "linewidth": 2.2, "label": f"best, #{trial.number}"}
        ax.plot(x, y, **style)
        if trial.state in ("PRUNED", "FAIL"):
            scatter_values(ax, w, objective, x[-1:], y[-1:], marker="x", color=style["color"], s=26)
        elif len(x) == 1:
            ax.plot(x, y, "o", color=style["color"], markersize=4)
    ax.set_xlabel("seed, in the order they are trained" if results.over_seeds else "epoch")
    whole_ticks(ax.xaxis)
    add_grid(ax)
    handles, labels = ax.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    figure.legend(list(by_label.values()), list(by_label), loc="outside lower center", ncols=len(by_label), frameon=False)
    save(figure, path)
    return True


def importances(results: SearchResults, path: Path) -> bool:
    """Draw a bar per parameter. Return whether there is anything to draw."""
    if len(results.importances) < 2:
        return False
    names = list(results.importances)[::-1]
    shares = [results.importances[n] for n in names]
    figure = new_figure(8, 1.1 + 0.38 * len(names))
    ax = figure.subplots()
    bars = ax.barh(names, shares, color=GOOD, height=0.62)
    ax.bar_label(bars, [f"{x:.0%}" for x in shares], padding=4, fontsize=9)
    ax.set(xlim=(0, 1.12 * max(shares)), xlabel="share in what sets the best trials apart from all (PED-ANOVA)")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)
    save(figure, path)
    return True


def pareto(results: SearchResults, path: Path) -> bool:
    """Draw quality against each cost: all complete trials, and the front joined by the best quality for at most a cost.

    Return whether there is anything to draw.
    """
    costs = [o for o in results.objectives if o != results.search.quality]
    if not costs or not results.in_state("COMPLETE"):
        return False
    figure = new_figure(max(9, 6.2 * len(costs)), 6)
    axes = figure.subplots(1, len(costs), squeeze=False)
    for ax, cost in zip(axes.flat, costs, strict=True):
        _pareto(ax, results, cost, joined=len(costs) == 1)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    lay_out(figure)
    labelled = spread(results.best, MOST_LABELLED)
    for ax, cost in zip(axes.flat, costs, strict=True):
        w, v = (
            window([results.value(trial, o) for trial in results.in_state("COMPLETE")], (), o)
            for o in (cost, results.search.quality)
        )
        points = np.array(
            [[w.clip(results.value(trial, cost)), v.clip(results.value(trial, results.search.quality))] for trial in labelled]
        ).reshape(-1, 2)
        figures.label(ax, [f"#{trial.number}" for trial in labelled], points)
    save(figure, path)
    return True


def _pareto(ax: Axes, results: SearchResults, cost: Score, *, joined: bool) -> None:
    """Draw the panel of a cost; the front is joined by steps if `joined`."""
    quality, complete = results.search.quality, results.in_state("COMPLETE")
    w = window([results.value(trial, quality) for trial in complete], (), quality)
    cost_window = window([results.value(trial, cost) for trial in complete], (), cost)
    on_front = {trial.number for trial in results.best}
    for trials, style in (
        (
            [trial for trial in complete if trial.feasible and trial.number not in on_front],
            {"color": ENDED, "s": 26, "label": "complete"},
        ),
        (
            [trial for trial in complete if not trial.feasible],
            {"facecolors": "none", "edgecolors": BROKEN, "s": 30, "label": "breaks a constraint"},
        ),
        (list(results.best), {"color": GOOD, "s": 44, "edgecolors": "black", "linewidths": 0.7, "zorder": 4, "label": "front"}),
    ):
        if trials:
            x, y = (
                cost_window.clip([results.value(trial, cost) for trial in trials]),
                [results.value(trial, quality) for trial in trials],
            )
            scatter_values(ax, w, quality, x, y, **style)
    style_value_axis(ax, cost_window, cost, "x")
    style_value_axis(ax, w, quality)
    note_outside(ax, w.note(quality))
    if cost_window.low > 0 and cost_window.high > 10 * cost_window.low:
        ax.set_xscale("log")
        ax.set_xlim(cost_window.low / 1.4, cost_window.high * 1.4)
        log_ticks(ax.xaxis, cost_window.low, cost_window.high)
    if joined and len(results.best) > 1:
        xy = sorted(
            (float(cost_window.clip(results.value(trial, cost))), float(w.clip(results.value(trial, quality))))
            for trial in results.best
        )
        higher = cost.sign > 0  # the steps are the best quality of trials whose cost is at least as good
        corners = [(a[0], b[1]) if higher else (b[0], a[1]) for a, b in pairwise(xy)]
        line = [*(p for point_and_corner in zip(xy, corners, strict=False) for p in point_and_corner), xy[-1]]
        ax.plot(*zip(*line, strict=True), color=GOOD, linewidth=1.2, zorder=3)
    for constraint in results.search.constraints:
        if constraint.score == cost.key:
            bound = constraint.at_least if constraint.at_most is None else constraint.at_most
            ax.axvline(bound or 0, color=BROKEN, linestyle="--", linewidth=1, label="constraint")
    add_grid(ax)


SearchFigure = tuple[str, Callable[[SearchResults, Path], bool], str]

SEARCH_FIGURES: Mapping[str, SearchFigure] = {
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


def draw(results: SearchResults, folder: Path) -> dict[str, tuple[str, str]]:
    """Draw every figure that there is something to draw for, as NAME.png. Return title and caption by name."""
    return {
        name: (title, caption) for name, (title, drawn, caption) in SEARCH_FIGURES.items() if drawn(results, folder / f"{name}.png")
    }
