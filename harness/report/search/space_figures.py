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

from harness.figures import new_figure
from harness.queue import SearchTrial
from harness.report.search.axes import (
    BEST_FILL,
    BROKEN,
    ENDED,
    HALVES,
    PLAIN,
    SHORT,
    Window,
    at,
    dress,
    dress_values,
    integers,
    note_cut,
    scatter_values,
    shade,
    soften,
    star,
    unit,
    window,
)
from harness.report.search.results import SearchResults
from harness.report.search.text import say
from harness.study import SCORES
from harness.study.space import Parameter

SLICES, LINES = 12, 9  # parameters that slices and parallel coordinates show at most, those that matter most
SPREAD = 8  # values that a parameter must have had for colours between them
ABSENT = -0.13  # where a line passes the axis of a parameter that its trial does not have


def slices(s: SearchResults, path: Path) -> bool:
    """Every objective against every parameter; a panel each, of the trials that have it."""
    shown, over = list(s.parameters.values())[:SLICES], [*s.those("COMPLETE"), *s.those("PRUNED")]
    if len(over) < 2:
        return False
    per = -(-len(shown) // 4)  # rows of panels of an objective
    columns = -(-len(shown) // per)
    size = (max(6, 3.3 * columns), 3.3 * per * len(s.search.objectives))
    figure = new_figure(*size)
    axes = figure.subplots(per * len(s.search.objectives), columns, squeeze=False)
    shades = Normalize(0, max(1, s.history[-1].number))
    for i, objective in enumerate(s.search.objectives):
        block = axes[i * per : (i + 1) * per]
        complete, pruned = ([s.value(a, objective) for a in s.those(state)] for state in ("COMPLETE", "PRUNED"))
        w = window(complete, pruned, objective)
        for ax, p in zip(block.flat, shown, strict=False):
            dress_values(ax, w, objective)
            _slice(ax, s, p, objective, w, shades)
        for ax in block[:, 1:].flat:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
        for ax in block.flat[len(shown) :]:
            ax.set_axis_off()
        note_cut(block[0, 0], w.note(objective))
    bar = figure.colorbar(ScalarMappable(shades, "Blues"), ax=axes, shrink=0.8, aspect=30, pad=0.01)
    bar.set_label("trial number")
    integers(bar.ax.yaxis)
    handles = {label: h for ax in axes.flat for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=max(1, len(handles)), frameon=False)
    figure.savefig(path, dpi=110)
    return True


def _slice(ax: Axes, s: SearchResults, p: Parameter, objective: str, w: Window, shades: Normalize) -> None:
    complete = [a for a in s.those("COMPLETE") if p.name in a.params]
    pruned = [a for a in s.those("PRUNED") if p.name in a.params and np.isfinite(s.value(a, objective))]
    able, broken = [a for a in complete if a.feasible], [a for a in complete if not a.feasible]

    def put(trials: list[SearchTrial], **how: object) -> None:
        scatter_values(ax, w, objective, [at(p, a) for a in trials], [s.value(a, objective) for a in trials], **how)

    put(pruned, marker="x", color=ENDED, s=18, linewidths=0.9, label="pruned")
    put(broken, facecolors="none", edgecolors=BROKEN, s=26, label="breaks a constraint")
    put(able, c=[a.number for a in able], cmap="Blues", norm=shades, edgecolors="0.35", linewidths=0.4, s=28)
    if not s.several and s.best and p.name in s.best[0].params:
        star(ax, at(p, s.best[0]), float(w.put(s.value(s.best[0], objective))))
    dress(ax, p)
    have = sum(p.name in a.params for a in s.history)
    if have < len(s.history):
        ax.set_xlabel(f"{p.name}\n(in {have} of {len(s.history)} trials)")
    soften(ax)


def pair(s: SearchResults) -> tuple[Parameter, Parameter] | None:
    """The two parameters that matter most of those that enough complete trials have together."""
    complete = s.those("COMPLETE")
    for two in sorted(combinations(s.parameters.values(), 2), key=lambda two: -sum(s.importances.get(p.name, 0) for p in two)):
        if sum(all(p.name in a.params for p in two) for a in complete) >= max(3, len(complete) / 4):
            return two
    return None


def contour(s: SearchResults, path: Path) -> bool:
    """The quality over the two parameters that matter most: a dot per trial, lines between numbers."""
    two, objective = pair(s), s.search.quality
    if two is None:
        return False
    there = [a for a in s.those("COMPLETE") if all(p.name in a.params for p in two)]
    ended = [a for a in s.those("PRUNED") if all(p.name in a.params for p in two)]
    w = window([s.value(a, objective) for a in there], (), objective)
    norm, colours = shade(w, objective)
    x, y = ([at(p, a) for a in there] for p in two)
    z = w.put([s.value(a, objective) for a in there])
    figure = new_figure(8, 5.6)
    ax = figure.subplots()
    dress(ax, two[0], "x")
    dress(ax, two[1], "y")
    mesh = _mesh(two, x, y)
    if mesh is not None and w.high > w.low:
        ax.tricontourf(mesh, z, levels=np.linspace(w.low, w.high, 11), cmap=colours, norm=norm, alpha=0.45)
    if ended:
        ax.scatter([at(two[0], a) for a in ended], [at(two[1], a) for a in ended], marker="x", s=22, color=ENDED, label="pruned")
    for able, edge, wide, words in ((True, "black", 0.9, "complete"), (False, BROKEN, 2.0, "breaks a constraint")):
        of = [i for i, a in enumerate(there) if a.feasible == able]
        if of:
            ax.scatter(np.take(x, of), np.take(y, of), c=z[of], cmap=colours, norm=norm, s=46, edgecolors=edge, linewidths=wide)
            ax.scatter([], [], color="0.8", s=46, edgecolors=edge, linewidths=wide, label=words)  # for the legend: of no value
    best = s.best[0] if s.best else None
    if best and not s.several and all(p.name in best.params for p in two):
        star(ax, at(two[0], best), at(two[1], best))
    cut: dict[str, Any] = {"extend": "min" if w.worst < w.low else "max"} if w.cut else {}
    figure.colorbar(ScalarMappable(norm, colours), ax=ax, **cut).set_label(SCORES[objective].label)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    if w.cut:
        note_cut(ax, f"colours cut: the worst value is {w.worst:,.{SCORES[objective].digits}f}")
    figure.savefig(path, dpi=110)
    return True


def _mesh(two: tuple[Parameter, Parameter], x: list[float], y: list[float]) -> Triangulation | None:
    """Triangles between points, well shaped as the axes show them; None where two numbers do not span a plane."""
    if any(p.choices for p in two) or min(len(set(x)), len(set(y))) < SPREAD:
        return None
    flat = np.array([[unit(two[0], a), unit(two[1], b)] for a, b in zip(x, y, strict=True)])
    if np.linalg.svd(flat - flat.mean(0), compute_uv=False)[1] < 0.1:
        return None
    return Triangulation(x, y, Triangulation(flat[:, 0], flat[:, 1]).triangles)


def parallel(s: SearchResults, path: Path) -> bool:
    """An axis per parameter and objective, a line per trial; below an axis where a trial has no such parameter."""
    shown, objectives = list(s.parameters.values())[:LINES], s.search.objectives
    complete, pruned = s.those("COMPLETE"), s.those("PRUNED")
    if len(complete) < 2 or len(shown) < 2:
        return False
    windows = {o: window([s.value(a, o) for a in complete], (), o) for o in objectives}
    norm, colours = shade(windows[s.search.quality], s.search.quality)
    figure = new_figure(max(8, 1.9 * (len(shown) + len(objectives))), 5)
    ax = figure.subplots()
    for a in pruned:
        ax.plot(range(len(shown)), _heights(shown, a), color="0.86", linewidth=0.8, zorder=1)
    best = s.best[0] if s.best and not s.several else None
    for rank, a in enumerate(reversed(s.ranked)):  # the better in front
        y = [*_heights(shown, a), *(w.place(s.value(a, o)) for o, w in windows.items())]
        kept = windows[s.search.quality].put(s.value(a, s.search.quality))
        look: dict[str, Any] = {"color": colours(norm(kept)), "linewidth": 1.2, "alpha": 0.85}
        if best and a.number == best.number:
            look = {"color": BEST_FILL, "linewidth": 2.6}
        ax.plot(range(len(y)), y, zorder=2 + rank / len(complete), **look)
    for i, p in enumerate(shown):
        _axis(ax, i, _ticks(p))
        if any(p.name not in a.params for a in (*complete, *pruned)):
            ax.text(i, ABSENT - 0.03, "absent", ha="center", va="top", fontsize=8, color="0.45")
    for i, (o, w) in enumerate(windows.items(), len(shown)):
        _axis(ax, i, _value_ticks(w, o))
    names = [*(_broken(p.name) for p in shown), *map(_short, objectives)]
    ax.set_xticks(range(len(names)), names, fontsize=9.5)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    absent = any(p.name not in a.params for a in (*complete, *pruned) for p in shown)
    ax.set(yticks=[], xlim=(-0.35, len(names) - 0.55), ylim=(ABSENT - 0.12 if absent else -0.1, 1.1))
    ax.spines[:].set_visible(False)
    figure.savefig(path, dpi=110)
    return True


def _broken(name: str) -> str:
    first, line, rest = name.rpartition("_")
    return f"{first}_\n{rest}" if line and len(name) > 14 else name


def _short(objective: str) -> str:
    return SCORES[objective].label.replace(" (", "\n(").replace(" of a trial", "")


def _heights(shown: list[Parameter], a: SearchTrial) -> list[float]:
    return [unit(p, at(p, a)) if p.name in a.params else ABSENT for p in shown]


def _ticks(p: Parameter) -> list[tuple[float, str]]:
    if p.choices:
        return [(unit(p, i), say(c)) for i, c in enumerate(p.choices)]
    if p.log:
        values = LogLocator(subs=HALVES if p.high / p.low <= SHORT else (1,)).tick_values(p.low, p.high)
    else:
        values = MaxNLocator(5, integer=p.whole).tick_values(p.low, p.high)
    return [(unit(p, v), PLAIN.format(x=float(v))) for v in values if p.low <= v <= p.high]


def _value_ticks(w: Window, objective: str) -> list[tuple[float, str]]:
    """Ticks of an axis of values; at the edge where it is cut, how far beyond it goes."""
    values = [float(v) for v in MaxNLocator(5).tick_values(w.low, w.high) if w.low <= v <= w.high]
    ticks = [(w.place(v), PLAIN.format(x=v)) for v in values]
    if not w.cut:
        return ticks
    edge, bound, to = (0.0, w.low, "≤") if w.worst < w.low else (1.0, w.high, "≥")
    return [*(t for t in ticks if abs(t[0] - edge) > 0.06), (edge, f"{to} {bound:,.{SCORES[objective].digits}f}")]


def _axis(ax: Axes, x: float, ticks: list[tuple[float, str]]) -> None:
    ax.plot([x, x], [0, 1], color="0.25", linewidth=1, zorder=5)
    for y, text in ticks:
        ax.plot([x - 0.02, x], [y, y], color="0.25", linewidth=1, zorder=5)
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}
        ax.text(x - 0.03, y, text, ha="right", va="center", fontsize=8, zorder=6, bbox=box)
