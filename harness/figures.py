"""Pictures of one trained trial, drawn from its evaluation. Each is a matplotlib figure; `draw` makes them all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.data import Data
from harness.metrics import Evaluation
from harness.spec import TrialSpec
from harness.vae import VAE

PER_CLASS = 400  # points per class in a scatter: more hide each other
GRID = 16  # images along a manifold's side
EXTENT = 2.0
GREY: dict[str, Any] = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0, "interpolation": "nearest"}


@dataclass(frozen=True)
class Subject:
    """What there is to draw: a trial, its model and scores, and its history (a row per epoch)."""

    spec: TrialSpec
    vae: VAE
    data: Data
    evaluation: Evaluation
    history: Sequence[Mapping[str, float]]


def tile(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Images (N, side, side) laid out row by row with white gaps: one picture."""
    rows = -(-len(images) // columns)
    side = images.shape[1] + gap
    sheet = np.ones((rows * side - gap, columns * side - gap), dtype=np.float32)
    for i, image in enumerate(images):
        r, c = divmod(i, columns)
        sheet[r * side : r * side + image.shape[0], c * side : c * side + image.shape[1]] = image
    return sheet


def examples(labels: torch.Tensor, each: int = 1) -> list[int]:
    """Indices of the first `each` images of every class, class by class: the same pictures for every trial."""
    return [int(i) for k in labels.unique() for i in (labels == k).nonzero()[:each, 0]]


def scatter_points(labels: torch.Tensor) -> torch.Tensor:
    """Indices of the images that a latent scatter shows."""
    return torch.tensor(examples(labels, PER_CLASS))


def axes_to_show(evaluation: Evaluation) -> tuple[int, int]:
    """The two latents with the largest KL, in their own order; the same one twice where z = 1."""
    top = evaluation.kl_per_dimension.topk(min(2, len(evaluation.kl_per_dimension))).indices.sort().values.tolist()
    return top[0], top[-1]


def curves(s: Subject) -> Figure:
    """ELBO, reconstruction and KL over epochs, train and validation."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
    epochs = range(1, len(s.history) + 1)
    labels = {"elbo": "ELBO (beta = 1)", "recon": "reconstruction, E log p(x|z)", "kl": "KL(q || p)"}
    for ax, (term, label) in zip(axes, labels.items(), strict=True):
        for split, style in {"train": "--", "validation": "-"}.items():
            values = [row[f"{term}/{split}"] for row in s.history if f"{term}/{split}" in row]
            if values:
                ax.plot(epochs, values, style, marker="." if len(values) < 30 else None, label=split)
        ax.set(title=label, xlabel="epoch", ylabel="nats per image")
        ax.legend(frameon=False, loc="center right")  # "best" searches for 0.3 s
    return figure


def reconstructions(s: Subject) -> Figure:
    """Two test images of each class over what the model makes of them."""
    index = examples(s.data.test.labels, 2)
    side = s.data.side
    originals = s.data.test.levels[index].cpu().float().div(255).view(-1, side, side).numpy()
    images = s.evaluation.test.image[index].cpu().view(-1, side, side).numpy()
    figure, axes = plt.subplots(2, 1, figsize=(9, 1.5), layout="constrained")
    for ax, sheet, label in zip(axes, (originals, images), ("test image", "decoded mean"), strict=True):
        show_images(ax, tile(sheet, len(index)))
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


@torch.no_grad()
def samples(s: Subject) -> Figure:
    """Mean images of 64 draws from the prior; the same draws for every trial."""
    z = torch.randn(64, s.spec.latent, generator=torch.Generator().manual_seed(0))
    figure, ax = plt.subplots(figsize=(4, 4.3), layout="constrained")
    show_images(ax, tile(decode(s.vae, z, s.data.side), 8))
    ax.set_title("decoded draws from the prior")
    return figure


def latents(s: Subject) -> Figure:
    """Posterior means of test images, coloured by class, on the two latents with the largest KL."""
    figure, ax = plt.subplots(figsize=(5, 4.3), layout="constrained")
    i, j = axes_to_show(s.evaluation)
    labels = s.data.test.labels.cpu()
    points = scatter_points(labels)
    mean = s.evaluation.test.mean[points.to(s.evaluation.test.mean.device)].cpu().numpy()
    dots = scatter(ax, mean[:, [i, j]], labels[points].numpy())
    ax.set(title="posterior means of test images", xlabel=f"E q(z{i + 1} | x)", ylabel=f"E q(z{j + 1} | x)")
    figure.colorbar(dots, ax=ax, label="class", ticks=range(int(labels.max()) + 1))
    return figure


def scatter(ax: Axes, mean: np.ndarray, labels: np.ndarray) -> object:
    """Points (N, 2) coloured by class on square axes around the prior."""
    classes = int(labels.max()) + 1
    dots = ax.scatter(
        mean[:, 0],
        mean[:, 1],
        c=labels,
        s=3,
        linewidths=0,
        cmap=plt.get_cmap("tab10", classes),
        vmin=-0.5,
        vmax=classes - 0.5,
    )
    ax.set_aspect("equal", adjustable="datalim")
    return dots


def manifold(s: Subject) -> Figure:
    """What the decoder makes of z on an even grid over [-2, 2]^2 (z = 2)."""
    line = torch.linspace(-EXTENT, EXTENT, GRID)
    return _manifold(s, line, "decoded z, even grid", [f"{t:g}" for t in (-EXTENT, 0, EXTENT)])


def manifold_quantiles(s: Subject) -> Figure:
    """The same at even quantiles of the prior: every cell holds as much of its mass (z = 2)."""
    line = torch.special.ndtri((torch.arange(GRID) + 0.5) / GRID)
    return _manifold(s, line, "decoded z, even prior quantiles", [f"{100 * q / GRID:.0f} %" for q in (0.5, GRID / 2, GRID - 0.5)])


@torch.no_grad()
def _manifold(s: Subject, line: torch.Tensor, title: str, ticks: list[str]) -> Figure:
    z = torch.cartesian_prod(line.flip(0), line).flip(1)  # rows from the top: z2 falls downwards, z1 grows to the right
    sheet = tile(decode(s.vae, z, s.data.side), GRID, gap=0)
    figure, ax = plt.subplots(figsize=(5, 5.2), layout="constrained")
    ax.imshow(sheet, **GREY)
    half = s.data.side / 2
    at = [half, sheet.shape[0] / 2, sheet.shape[0] - half]
    ax.set(title=title, xlabel="z1", ylabel="z2", xticks=at, yticks=at)
    ax.set_xticklabels(ticks)
    ax.set_yticklabels(ticks[::-1])
    return figure


def kl_per_dimension(s: Subject) -> Figure:
    """Mean KL of each latent on the test set, largest first."""
    kl, order = s.evaluation.kl_per_dimension.sort(descending=True)
    figure, ax = plt.subplots(figsize=(max(3.2, 0.22 * len(kl) + 1.5), 2.8), layout="constrained")
    ax.bar([f"z{i + 1}" for i in order.tolist()], kl.tolist())
    ax.set(title="KL of each latent", ylabel="nats per image")
    if len(kl) > 8:
        ax.tick_params(axis="x", rotation=90, labelsize=7)
    return figure


@torch.no_grad()
def decode(vae: VAE, z: torch.Tensor, side: int) -> np.ndarray:
    """Mean images of z (N, Z): (N, side, side)."""
    where = next(vae.parameters()).device
    return vae.likelihood.mean(*vae.decode(z.to(where)[None]))[0].clamp(0, 1).cpu().view(-1, side, side).numpy()


def show_images(ax: Axes, sheet: np.ndarray) -> None:
    """A picture without axes."""
    ax.imshow(sheet, **GREY)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


FIGURES: Mapping[str, Callable[[Subject], Figure]] = {
    "curves": curves,
    "reconstructions": reconstructions,
    "samples": samples,
    "latents": latents,
    "manifold": manifold,
    "manifold_quantiles": manifold_quantiles,
    "kl_per_dimension": kl_per_dimension,
}
NEEDS_TWO_LATENTS = ("manifold", "manifold_quantiles")


def draw(subject: Subject, folder: Path) -> Iterator[Path]:
    """Every figure that fits the trial, as PNG files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in FIGURES.items():
        if name in NEEDS_TWO_LATENTS and subject.spec.latent != 2:
            continue
        path = folder / f"{name}.png"
        figure = make(subject)
        figure.savefig(path, dpi=100)
        plt.close(figure)
        yield path
