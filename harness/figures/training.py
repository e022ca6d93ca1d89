"""The figure of a trial's training over epochs, from its history alone. Torch is not imported here."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from harness.figures.axes import new_figure
from harness.scores import SCORES

TERMS = {"elbo": "ELBO (beta = 1)", "recon": "reconstruction, E log p(x|z)", "kl": "KL(q || p)"}


def training_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Draw ELBO, reconstruction and KL over epochs, on training and validation images, from the metrics of each epoch."""
    figure = new_figure(9, 2.8)
    axes = figure.subplots(1, 3)
    epochs = range(1, len(history) + 1)
    for ax, (term, label) in zip(axes, TERMS.items(), strict=True):
        for score in (row for row in SCORES.values() if row.curve and row.name == term):
            values = [row[score.key] for row in history if score.key in row]
            if values:
                style = "--" if score.images == "train" else "-"
                ax.plot(epochs, values, style, marker="." if len(values) < 30 else None, label=score.images)
        ax.set(title=label, xlabel="epoch", ylabel="nats per image")
        ax.legend(frameon=False, loc="center right")  # "best" searches for 0.3 s
    return figure
