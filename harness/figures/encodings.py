"""Figures of the test set's encodings: codes by class, the aggregate posterior against the prior, and the KL of each latent."""

import numpy as np
import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from harness.figures.axes import new_figure, scatter
from harness.figures.canvas import Subject, axes_to_show, scatter_points
from harness.metrics.latents import ACTIVE_VARIANCE
from harness.scores.rows import MARGINAL_KL

DRAWS = 10  # of q per image
BINS = 80
PRIOR_MASS = (0.5, 0.9, 0.99)
LABELLED = 50  # most latents that have their names on the axis


def latents(s: Subject) -> Figure:
    """Draw the posterior means of test images, coloured by class if they have any, on the two latents with the largest KL."""
    figure = new_figure(5, 4.3)
    ax = figure.subplots()
    i, j = axes_to_show(s.evaluation)
    labels, points = s.data.test.labels, scatter_points(s.data.test)
    mean = s.evaluation.test.mean[points.to(s.evaluation.test.mean.device)].cpu().numpy()
    scatter(figure, ax, mean[:, [i, j]], None if labels is None else labels.cpu()[points].numpy(), "class")
    ax.set(title="posterior means of test images", xlabel=f"E q(z{i + 1} | x)", ylabel=f"E q(z{j + 1} | x)")
    return figure


def aggregate_posterior(s: Subject) -> Figure:
    """Draw the density of z ~ q(z|x) over the test set, with circles of the prior and N(0, 1) along the sides (two latents)."""
    mean, log_var = s.evaluation.test.mean.cpu(), s.evaluation.test.log_var.cpu()
    eps = torch.randn(DRAWS, *mean.shape, generator=torch.Generator().manual_seed(0))
    z = (mean + (log_var / 2).exp() * eps).flatten(0, 1).numpy()
    reach = max(3.5, float(np.quantile(np.abs(z), 0.999)))
    edges = np.linspace(-reach, reach, BINS + 1)
    figure = new_figure(5.6, 6.7)
    axes = figure.subplots(2, 2, sharex="col", sharey="row", width_ratios=(4, 1), height_ratios=(1, 4))
    (top, corner), (middle, right) = axes
    corner.set_axis_off()
    density = np.histogram2d(z[:, 0], z[:, 1], bins=(edges, edges), density=True)[0]
    shades = middle.pcolormesh(edges, edges, np.ma.masked_equal(density.T, 0), cmap="Blues", norm=PowerNorm(0.5))
    for mass in PRIOR_MASS:
        radius = np.sqrt(-2 * np.log(1 - mass))
        middle.add_patch(Circle((0, 0), radius, fill=False, color="tab:orange", linewidth=1.5))
        middle.annotate(
            f"{mass:.0%}",
            (0, -radius),
            ha="center",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "tab:orange"},
        )
    middle.set(xlabel="z1", ylabel="z2", xlim=(-reach, reach), ylim=(-reach, reach))
    line = np.linspace(-reach, reach, 200)
    normal = np.exp(-(line**2) / 2) / np.sqrt(2 * np.pi)
    sides = [np.histogram(z[:, i], edges, density=True)[0] for i in (0, 1)]
    top.stairs(sides[0], edges, fill=True, color="tab:blue", alpha=0.6, label="q(z)")
    top.plot(line, normal, color="tab:orange", label="prior")
    right.stairs(sides[1], edges, fill=True, color="tab:blue", alpha=0.6, orientation="horizontal")
    right.plot(normal, line, color="tab:orange")
    top.set(yticks=[])
    right.set(xticks=[])
    corner.legend(*top.get_legend_handles_labels(), loc="center", frameon=False)
    figure.colorbar(shades, ax=axes[1, :], location="bottom", shrink=0.6, aspect=30, label="density of q(z), per unit of area")
    distance = s.evaluation.scores.get(MARGINAL_KL.key)
    divergence = "" if distance is None else f": KL(q(z) || p(z)) = {distance:.2f} nats"
    figure.suptitle(f"codes of the test set{divergence}\ncircles hold 50, 90 and 99 % of the prior")
    return figure


def kl_per_dimension(s: Subject) -> Figure:
    """Draw the mean KL of each latent on the test set, largest first; a latent is active if its posterior mean varies."""
    kl, order = s.evaluation.kl_per_dimension.sort(descending=True)
    active = (s.evaluation.test.mean.var(0).cpu() > ACTIVE_VARIANCE)[order]
    position = torch.arange(len(kl))
    figure = new_figure(min(12.0, max(4.6, 0.2 * len(kl) + 1.5)), 3.2)
    ax = figure.subplots()
    for group, colour, label in (
        (active, "tab:blue", f"active: Var E q(z|x) > {ACTIVE_VARIANCE:g}"),
        (~active, "0.6", "not active"),
    ):
        if group.any():
            ax.bar(position[group].tolist(), kl[group].tolist(), color=colour, label=label)
    step = -(-len(kl) // LABELLED)
    ax.set(title=f"KL of each latent: {int(active.sum())} of {len(kl)} active", ylabel="nats per image", xlim=(-0.7, len(kl) - 0.3))
    ax.set_xticks(position[::step].tolist(), [f"z{i + 1}" for i in order[::step].tolist()])
    for name, on in zip(ax.get_xticklabels(), active[::step], strict=True):
        name.set_color("black" if on else "0.6")
    ax.margins(y=0.25)
    ax.legend(frameon=False, loc="upper right", ncols=2)
    if len(kl) > 12:
        ax.tick_params(axis="x", rotation=90, labelsize=8)
    return figure
