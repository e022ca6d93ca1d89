"""How large a trial is, as far as its spec alone tells: for refusals that need neither torch nor the images.

Shapes: B images, L draws, Z latents.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

from harness import catalog, references
from harness.resources import size

if TYPE_CHECKING:
    from harness.spec.trial import TrialSpec

FLOAT = 4  # bytes


def too_many_at_once(spec: "TrialSpec", images: int) -> str:
    """Return what is wrong with a trial's batch if it trains on so many images; empty if nothing is.

    Up to the default a batch may be larger, for any data.
    """
    if spec.batch_size <= max(images, type(spec).batch_size):
        return ""
    return (
        f"batch_size={spec.batch_size:,} is more than the {images:,} training images of {references.label(spec.dataset)}\n"
        f"give at most batch_size={images}, which is one step an epoch"
    )


def published_images(spec: "TrialSpec") -> int:
    """Return how many images a trial on a published data set trains on, at most; 0 if its data are others."""
    entry = catalog.DATASETS.get(spec.dataset)
    return entry.train + (entry.validation if spec.fit_on != "train" else 0) if entry else 0


def least_memory(spec: "TrialSpec") -> tuple[int, str]:
    """Return the bytes that a trial's training surely takes, and what for in words.

    They are its weights with their gradients between layers whose widths the spec says, and one step's noise, (B, L, Z). Of data
    that are not published a step may have fewer images than the spec says.
    """
    images = spec.batch_size if published_images(spec) else min(spec.batch_size, type(spec).batch_size)
    network = catalog.NETWORKS.get(spec.network)
    widths = spec.hidden if network and network.hidden and spec.hidden else ()
    # The decoder mirrors the encoder, which ends in the mean and the variance of each latent.
    weights = 2 * sum(a * b for a, b in pairwise(widths)) + (3 * widths[-1] * spec.latent if widths else 0)
    of_weights, of_noise = 2 * FLOAT * weights, FLOAT * images * spec.num_samples * spec.latent
    between = f"{size(of_weights)} for the weights between these widths and their gradients, " if widths else ""
    return of_weights + of_noise, (
        f"{in_words(spec)} takes more than {size(of_weights + of_noise)}: "
        f"{between}{size(of_noise)} for a step's noise of {step_in_words(spec, images)}"
    )


def in_words(spec: "TrialSpec") -> str:
    """Return a trial in words by what its size depends on."""
    widths = f", hidden={_short(spec.hidden)}" if spec.hidden else ""
    return f"{references.label(spec.network)}{widths}, latent={spec.latent:,}, {references.label(spec.likelihood)}"


def step_in_words(spec: "TrialSpec", images: int) -> str:
    """Return what a trial's step of so many images takes in, in words."""
    draws = f", {spec.num_samples:,} draws each" if spec.num_samples > 1 else ""
    return f"{images:,} images{draws}"


def _short(widths: tuple[int, ...]) -> str:
    """Return the widths of layers, those in the middle of many left out."""
    return str(widths) if len(widths) <= 4 else f"({widths[0]}, {widths[1]}, ... {widths[-1]}; {len(widths)} layers)"
