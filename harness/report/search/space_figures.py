"""Figures of a search over its space: slices, the two parameters that matter most, all parameters at once."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import LogLocator, MaxNLocator
from matplotlib.tri import Triangulation

from harness.figures.axes import new_figure
from harness.queue import SearchTrial
from harness.report.saved_figures import save
from harness.report.search.axes import (
    BEST_FILL,
    BROKEN,
    ENDED,
    HALVES,
    PLAIN,
    SHORT,
    Window,
    add_grid,
    colour_scale,
    mark_best,
    note_outside,
    position,
    scatter_values,
    style_axis,
    style_value_axis,
    unit_position,
    whole_ticks,
    window,
)
from harness.report.search.results import SearchResults
from harness.report.search.tables import parameter_text
from harness.scores import Score
from harness.study.space import Parameter

SLICES, LINES = 12, 9  # the most parameters that slices and parallel coordinates show; those that matter most
SPREAD = 8  # different values that a parameter must have for colours to be drawn between them
ABSENT = -0.13  # height of a line at the axis of a parameter that its trial does not have


def slices(results: SearchResults, path: Path) -> bool:
    """Draw every objective against every parameter, in a panel each, of the trials that have the parameter.

    Return whether there is anything to draw.
    """
    parameters, ended = list(results.parameters.values())[:SLICES], [*results.in_state("COMPLETE"), *results.in_state("PRUNED")]
    if len(ended) < 2:
        return False
    rows = -(-len(parameters) // 4)  # of panels of an objective
    columns = -(-len(parameters) // rows)
    size = (max(6, 3.3 * columns), 3.3 * rows * len(results.objectives))
    figure = new_figure(*size)
    axes = figure.subplots(rows * len(results.objectives), columns, squeeze=False)
    shades = Normalize(0, max(1, results.history[-1].number))
    for i, objective in enumerate(results.objectives):
        block = axes[i * rows : (i + 1) * rows]
        complete, pruned = (
            [results.value(trial, objective) for trial in results.in_state(state)] for state in ("COMPLETE", "PRUNED")
        )
        w = window(complete, pruned, objective)
        for ax, p in zip(block.flat, parameters, strict=False):
            style_value_axis(ax, w, objective)
            _slice(ax, results, p, objective, w, shades)
        for ax in block[:, 1:].flat:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
        for ax in block.flat[len(parameters) :]:
            ax.set_axis_off()
        note_outside(block[0, 0], w.note(objective))
    bar = figure.colorbar(ScalarMappable(shades, "Blues"), ax=axes, shrink=0.8, aspect=30, pad=0.01)
    bar.set_label("trial number")
    whole_ticks(bar.ax.yaxis)
    handles = {label: h for ax in axes.flat for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=max(1, len(handles)), frameon=False)
    save(figure, path)
    return True


def _slice(ax: Axes, results: SearchResults, p: Parameter, objective: Score, w: Window, shades: Normalize) -> None:
    """Draw the panel of an objective and a parameter."""
    complete = [trial for trial in results.in_state("COMPLETE") if p.name in trial.params]
    pruned = [
        trial for trial in results.in_state("PRUNED") if p.name in trial.params and np.isfinite(results.value(trial, objective))
    ]
    feasible, broken = [trial for trial in complete if trial.feasible], [trial for trial in complete if not trial.feasible]

    def draw(trials: list[SearchTrial], **style: object) -> None:
        scatter_values(
            ax,
            w,
            objective,
            [position(p, trial) for trial in trials],
            [results.value(trial, objective) for trial in trials],
            **style,
        )

    draw(pruned, marker="x", color=ENDED, s=18, linewidths=0.9, label="pruned")
    draw(broken, facecolors="none", edgecolors=BROKEN, s=26, label="breaks a constraint")
    draw(feasible, c=[trial.number for trial in feasible], cmap="Blues", norm=shades, edgecolors="0.35", linewidths=0.4, s=28)
    if not results.multi_objective and results.best and p.name in results.best[0].params:
        mark_best(ax, position(p, results.best[0]), float(w.clip(results.value(results.best[0], objective))))
    style_axis(ax, p)
    having = sum(p.name in trial.params for trial in results.history)
    if having < len(results.history):
        ax.set_xlabel(f"{p.name}\n(in {having} of {len(results.history)} trials)")
    add_grid(ax)


def main_parameters(results: SearchResults) -> tuple[Parameter, Parameter] | None:
    """Return the two parameters that matter most of those that enough complete trials have together; None if there are none."""
    complete = results.in_state("COMPLETE")
    for both in sorted(
        combinations(results.parameters.values(), 2), key=lambda both: -sum(results.importances.get(p.name, 0) for p in both)
    ):
        if sum(all(p.name in trial.params for p in both) for trial in complete) >= max(3, len(complete) / 4):
            return both
    return None


def contour(results: SearchResults, path: Path) -> bool:
    """Draw the quality over the two parameters that matter most: a dot per trial, and colours between numbers.

    Return whether there is anything to draw.
    """
    both, objective = main_parameters(results), results.search.quality
    if both is None:
        return False
    complete = [trial for trial in results.in_state("COMPLETE") if all(p.name in trial.params for p in both)]
    pruned = [trial for trial in results.in_state("PRUNED") if all(p.name in trial.params for p in both)]
    w = window([results.value(trial, objective) for trial in complete], (), objective)
    norm, colours = colour_scale(w, objective)
    x, y = ([position(p, trial) for trial in complete] for p in both)
    z = w.clip([results.value(trial, objective) for trial in complete])
    figure = new_figure(8, 5.6)
    ax = figure.subplots()
    style_axis(ax, both[0], "x")
    style_axis(ax, both[1], "y")
    mesh = _mesh(both, x, y)
    if mesh is not None and w.high > w.low:
        ax.tricontourf(mesh, z, levels=np.linspace(w.low, w.high, 11), cmap=colours, norm=norm, alpha=0.45)
    if pruned:
        ax.scatter(
            [position(both[0], trial) for trial in pruned],
            [position(both[1], trial) for trial in pruned],
            marker="x",
            s=22,
            color=ENDED,
            label="pruned",
        )
    for feasible, edge_colour, edge_width, label in ((True, "black", 0.9, "complete"), (False, BROKEN, 2.0, "breaks a constraint")):
        indices = [i for i, trial in enumerate(complete) if trial.feasible == feasible]
        if indices:
            ax.scatter(
                np.take(x, indices),
                np.take(y, indices),
                c=z[indices],
                cmap=colours,
                norm=norm,
                s=46,
                edgecolors=edge_colour,
                linewidths=edge_width,
            )
            # For the legend, in a colour that stands for no value.
            ax.scatter([], [], color="0.8", s=46, edgecolors=edge_colour, linewidths=edge_width, label=label)
    best = results.best[0] if results.best else None
    if best and not results.multi_objective and all(p.name in best.params for p in both):
        mark_best(ax, position(both[0], best), position(both[1], best))
    cut: dict[str, Any] = {"extend": "min" if w.worst < w.low else "max"} if w.cut else {}
    figure.colorbar(ScalarMappable(norm, colours), ax=ax, **cut).set_label(objective.label)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    if w.cut:
        note_outside(ax, f"colours cut: the worst value is {objective.text(w.worst)}")
    save(figure, path)
    return True


def _mesh(parameters: tuple[Parameter, Parameter], x: list[float], y: list[float]) -> Triangulation | None:
    """Return triangles between points, well shaped as the axes show them; None if the parameters do not span a plane."""
    if any(p.choices for p in parameters) or min(len(set(x)), len(set(y))) < SPREAD:
        return None
    unit_points = np.array([[unit_position(parameters[0], a), unit_position(parameters[1], b)] for a, b in zip(x, y, strict=True)])
    if np.linalg.svd(unit_points - unit_points.mean(0), compute_uv=False)[1] < 0.1:
        return None
    return Triangulation(x, y, Triangulation(unit_points[:, 0], unit_points[:, 1]).triangles)


def parallel(results: SearchResults, path: Path) -> bool:
    """Draw an axis per parameter and objective and a line per trial, below the axis of a parameter that the trial lacks.

    Return whether there is anything to draw.
    """
    parameters, objectives = list(results.parameters.values())[:LINES], results.objectives
    complete, pruned = results.in_state("COMPLETE"), results.in_state("PRUNED")
    if len(complete) < 2 or len(parameters) < 2:
        return False
    windows = [window([results.value(trial, o) for trial in complete], (), o) for o in objectives]
    quality = windows[objectives.index(results.search.quality)]
    norm, colours = colour_scale(quality, results.search.quality)
    figure = new_figure(max(8, 1.9 * (len(parameters) + len(objectives))), 5)
    ax = figure.subplots()
    for trial in pruned:
        ax.plot(range(len(parameters)), _heights(parameters, trial), color="0.86", linewidth=0.8, zorder=1)
    best = results.best[0] if results.best and not results.multi_objective else None
    for rank, trial in enumerate(reversed(results.ranked)):  # the better in front
        y = [*_heights(parameters, trial), *(w.fraction(results.value(trial, o)) for o, w in zip(objectives, windows, strict=True))]
        clipped = quality.clip(results.value(trial, results.search.quality))
        style: dict[str, Any] = {"color": colours(norm(clipped)), "linewidth": 1.2, "alpha": 0.85}
        if best and trial.number == best.number:
            style = {"color": BEST_FILL, "linewidth": 2.6}
        ax.plot(range(len(y)), y, zorder=2 + rank / len(complete), **style)
    for i, p in enumerate(parameters):
        _axis(ax, i, _ticks(p))
        if any(p.name not in trial.params for trial in (*complete, *pruned)):
            ax.text(i, ABSENT - 0.03, "absent", ha="center", va="top", fontsize=8, color="0.45")
    for i, (o, w) in enumerate(zip(objectives, windows, strict=True), len(parameters)):
        _axis(ax, i, _value_ticks(w, o))
    names = [*(_in_two_lines(p.name) for p in parameters), *map(_short_label, objectives)]
    ax.set_xticks(range(len(names)), names, fontsize=9.5)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    absent = any(p.name not in trial.params for trial in (*complete, *pruned) for p in parameters)
    ax.set(yticks=[], xlim=(-0.35, len(names) - 0.55), ylim=(ABSENT - 0.12 if absent else -0.1, 1.1))
    ax.spines[:].set_visible(False)
    save(figure, path)
    return True


def _in_two_lines(name: str) -> str:
    """Return a long name broken after its last underscore."""
    first, underscore, rest = name.rpartition("_")
    return f"{first}_\n{rest}" if underscore and len(name) > 14 else name


def _short_label(objective: Score) -> str:
    """Return an objective's label with its unit in a second line."""
    return objective.label.replace(" (", "\n(").replace(" of a trial", "")


def _heights(parameters: list[Parameter], trial: SearchTrial) -> list[float]:
    """Return the heights of a trial's line at the axes of these parameters."""
    return [unit_position(p, position(p, trial)) if p.name in trial.params else ABSENT for p in parameters]


def _ticks(p: Parameter) -> list[tuple[float, str]]:
    """Return the ticks of a parameter's axis, as heights from 0 to 1 and texts."""
    if p.choices:
        return [(unit_position(p, i), parameter_text(c)) for i, c in enumerate(p.choices)]
    if p.log:
        values = LogLocator(subs=HALVES if p.high / p.low <= SHORT else (1,)).tick_values(p.low, p.high)
    else:
        values = MaxNLocator(5, integer=p.whole).tick_values(p.low, p.high)
    return [(unit_position(p, v), PLAIN.format(x=float(v))) for v in values if p.low <= v <= p.high]


def _value_ticks(w: Window, objective: Score) -> list[tuple[float, str]]:
    """Return the ticks of an axis of values; at an edge that cuts values off, its bound with an inequality sign."""
    values = [float(v) for v in MaxNLocator(5).tick_values(w.low, w.high) if w.low <= v <= w.high]
    ticks = [(w.fraction(v), PLAIN.format(x=v)) for v in values]
    if not w.cut:
        return ticks
    edge, bound, symbol = (0.0, w.low, "≤") if w.worst < w.low else (1.0, w.high, "≥")
    return [*(t for t in ticks if abs(t[0] - edge) > 0.06), (edge, f"{symbol} {objective.text(bound)}")]


def _axis(ax: Axes, x: float, ticks: list[tuple[float, str]]) -> None:
    """Draw a vertical axis with its ticks."""
    ax.plot([x, x], [0, 1], color="0.25", linewidth=1, zorder=5)
    for y, text in ticks:
        ax.plot([x - 0.02, x], [y, y], color="0.25", linewidth=1, zorder=5)
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
        ax.text(x - 0.03, y, text, ha="right", va="center", fontsize=8, zorder=6, bbox=box)
