"""Figures of decoded images: of test images, of draws from the prior, and of the plane of two latents."""

import torch
from matplotlib.figure import Figure

from harness.figures.axes import GREY, new_figure, show_images, tile
from harness.figures.canvas import Subject, decode, examples

GRID = 16  # images along a manifold's side
EXTENT = 2.0


def reconstructions(s: Subject) -> Figure:
    """Draw two test images of each class above their reconstructions; twenty of images without labels."""
    index = examples(s.data.test, 2)
    originals = s.data.test.levels[index].cpu().float().div(255).unflatten(-1, s.data.image_shape).numpy()
    images = s.evaluation.test.image[index].cpu().unflatten(-1, s.data.image_shape).numpy()
    _, height, width = s.data.image_shape
    figure = new_figure(9, max(1.5, 2 * 8 / len(index) * height / width + 0.2))
    axes = figure.subplots(2, 1)
    for ax, sheet, label in zip(axes, (originals, images), ("test image", "decoded mean"), strict=True):
        show_images(ax, tile(sheet, len(index)))
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


@torch.no_grad()
def samples(s: Subject) -> Figure:
    """Draw the mean images of 64 draws from the prior; the draws are the same for every trial of equal Z."""
    z = torch.randn(64, s.spec.latent, generator=torch.Generator().manual_seed(0))
    _, height, width = s.data.image_shape
    figure = new_figure(4, 4 * height / width + 0.3)
    ax = figure.subplots()
    show_images(ax, tile(decode(s.vae, z, s.data.image_shape), 8))
    ax.set_title("decoded draws from the prior")
    return figure


def manifold(s: Subject) -> Figure:
    """Draw the mean images of z on an even grid over [-2, 2]^2 (two latents)."""
    line = torch.linspace(-EXTENT, EXTENT, GRID)
    return _manifold(s, line, "decoded z, even grid", [f"{t:g}" for t in (-EXTENT, 0, EXTENT)])


def manifold_quantiles(s: Subject) -> Figure:
    """Draw the mean images of z at even quantiles of the prior, so that every cell has the same prior mass (two latents)."""
    line = torch.special.ndtri((torch.arange(GRID) + 0.5) / GRID)
    return _manifold(s, line, "decoded z, even prior quantiles", [f"{100 * q / GRID:.0f} %" for q in (0.5, GRID / 2, GRID - 0.5)])


@torch.no_grad()
def _manifold(s: Subject, line: torch.Tensor, title: str, ticks: list[str]) -> Figure:
    """Draw the mean images of the grid that `line` spans along both latents, with three tick labels from low to high."""
    z = torch.cartesian_prod(line.flip(0), line).flip(1)  # rows from the top: z2 falls downwards, z1 grows to the right
    sheet = tile(decode(s.vae, z, s.data.image_shape), GRID, gap=0)
    _, height, width = s.data.image_shape
    figure = new_figure(5, 5 * height / width + 0.2)
    ax = figure.subplots()
    ax.imshow(sheet, **GREY)
    across, down = ([one / 2, length / 2, length - one / 2] for one, length in ((width, sheet.shape[1]), (height, sheet.shape[0])))
    ax.set(title=title, xlabel="z1", ylabel="z2", xticks=across, yticks=down)
    ax.set_xticklabels(ticks)
    ax.set_yticklabels(ticks[::-1])
    return figure
