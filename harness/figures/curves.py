"""Figures of a trial's scores: its metrics over epochs, its bounds on log p(x), its dead hidden units."""

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from harness import references
from harness.figures.axes import new_figure
from harness.figures.canvas import Subject
from harness.figures.training import training_curves
from harness.scores.rows import EXACT_LOG_PX


def curves(s: Subject) -> Figure:
    """Draw ELBO, reconstruction and KL over epochs, on training and validation images."""
    return training_curves(s.history)


def bounds(s: Subject) -> Figure:
    """Draw IW-K over K, from the ELBO at K = 1, and the exact log p(x) if the trial has it."""
    ladder = sorted(s.evaluation.ladder.items())
    ks, values = [k for k, _ in ladder], [v for _, v in ladder]
    exact = s.evaluation.scores.get(EXACT_LOG_PX.key)
    figure = new_figure(5.4, 3.6)
    ax = figure.subplots()
    ax.plot(ks, values, marker="o", zorder=3)
    ax.set_xscale("log")
    ax.set_xlim(0.6, ks[-1] * 3)
    ax.set_xticks(ks, [f"{k:,}" for k in ks])
    ax.minorticks_off()
    top = values[-1] if exact is None else exact
    name = f"IW-{ks[-1]:,}" if exact is None else "exact log p(x)"
    ax.axhline(top, color="tab:orange", linestyle="--")
    ax.annotate(
        f"{name}: {top:.2f}", (0.5, top), (0, 4), xycoords=("axes fraction", "data"), textcoords="offset points", ha="center"
    )
    ax.annotate(f"ELBO: {values[0]:.2f}", (ks[0], values[0]), (8, -4), textcoords="offset points", va="top")
    ax.annotate("", (ks[0], values[0]), (ks[0], top), arrowprops={"arrowstyle": "<->", "color": "0.4"})
    gap = f"gap {'of' if exact is not None else 'at least'} {top - values[0]:.2f} nats"
    ax.annotate(
        gap, (ks[0], (top + values[0]) / 2), (-4, 0), textcoords="offset points", ha="right", va="center", rotation=90, fontsize=9
    )
    ax.margins(y=0.2)
    ax.set(
        xlabel="K, draws of z per image",
        ylabel="nats per image",
        title=f"bounds on log p(x), test set\n{references.label(s.spec.likelihood)}, {s.spec.scale}",
    )
    return figure


def dead_units_by_layer(s: Subject) -> Figure:
    """Draw the share of units of each hidden layer that are dead on the whole validation set."""
    shares = s.evaluation.dead_by_layer
    figure = new_figure(max(4.6, 0.9 * len(shares) + 1), 3)
    ax = figure.subplots()
    bars = ax.bar([name.replace("_", "\n") for name in shares], list(shares.values()), color="tab:red")
    ax.set(title="dead hidden units, validation set", ylabel="share of the layer", ylim=(0, 1))
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    if any(shares.values()):
        ax.bar_label(bars, [f"{v:.1%}" for v in shares.values()], padding=2)
    else:
        ax.text(0.5, 0.5, f"none of {len(shares)} layers has dead units", transform=ax.transAxes, ha="center")
    return figure
