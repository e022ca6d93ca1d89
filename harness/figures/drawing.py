"""The table of figures of a trained trial, by name, and `draw`, which writes those that fit the trial."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from harness.figures.axes import scatter, show_images, tile
from harness.figures.canvas import Subject, axes_to_show, decode, examples, scatter_points
from harness.figures.curves import bounds, curves, dead_units_by_layer
from harness.figures.encodings import aggregate_posterior, kl_per_dimension, latents
from harness.figures.images import manifold, manifold_quantiles, reconstructions, samples
from harness.figures.posterior import posteriors

__all__ = [
    "AT_A_GLANCE",
    "FIGURES",
    "NEEDS_TWO_LATENTS",
    "Subject",
    "axes_to_show",
    "decode",
    "draw",
    "examples",
    "fits",
    "scatter",
    "scatter_points",
    "show_images",
    "tile",
]

FIGURES: Mapping[str, Callable[[Subject], Figure]] = {
    "curves": curves,
    "reconstructions": reconstructions,
    "samples": samples,
    "latents": latents,
    "manifold": manifold,
    "manifold_quantiles": manifold_quantiles,
    "aggregate_posterior": aggregate_posterior,
    "posteriors": posteriors,
    "kl_per_dimension": kl_per_dimension,
    "bounds": bounds,
    "dead_units": dead_units_by_layer,
}
AT_A_GLANCE = ("reconstructions", "samples")
# Drawn in a quick evaluation: all eleven would take 8 % of a short trial, and what the others show is stored as numbers.
IN_QUICK = (*AT_A_GLANCE, "latents", "manifold")
NEEDS_TWO_LATENTS = ("manifold", "manifold_quantiles", "aggregate_posterior", "posteriors")


def fits(name: str, subject: Subject) -> bool:
    """Return whether a figure of `FIGURES` can be drawn for a trial and belongs to its evaluation's depth."""
    contents = {"bounds": subject.evaluation.ladder, "dead_units": subject.evaluation.dead_by_layer}
    wanted = subject.spec.evaluation != "quick" or name in IN_QUICK
    return wanted and bool(contents.get(name, True)) and (subject.spec.latent == 2 or name not in NEEDS_TWO_LATENTS)


def draw(subject: Subject, folder: Path, names: Collection[str] = tuple(FIGURES)) -> Iterator[Path]:
    """Write those of the named figures that fit the trial as PNG files `<name>.png` in a folder.

    Yields:
        The path of each file when it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in FIGURES.items():
        if name in names and fits(name, subject):
            path = folder / f"{name}.png"
            figure = make(subject)
            figure.savefig(path, dpi=100)
            yield path
