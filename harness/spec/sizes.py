"""How large a trial is, and whether it fits its data, as far as its spec alone tells: for refusals that need no torch.

Shapes: B images, L draws, T steps, Z latents.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from harness import catalog, references
from harness.errors import UserError
from harness.resources import size

if TYPE_CHECKING:
    from harness.spec.trial import TrialSpec

FLOAT = 4  # bytes
CHUNK = 32  # steps between two checks of the results; it also fixes how noise is drawn, so changing it changes every run


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


def other_channels(spec: "TrialSpec", takes: int | None, given: int) -> str:
    """Return what is wrong with images of `given` channels for a trial whose likelihood `takes` so many; empty if nothing is."""
    if takes in (None, given):
        return ""
    return (
        f"the likelihood {references.label(spec.likelihood)} is for images of {takes} channel{'s' * (takes != 1)}, "
        f"{references.label(spec.dataset)} has {given}\n"
        f"give likelihood_args.channels={given} if it takes that, or another likelihood: discretized_logistic takes any number"
    )


def check_fit(specs: Iterable["TrialSpec"], images: Mapping[str, int], channels: int) -> None:
    """Raise an error if trials do not fit their data, as far as that can be told without their code.

    Args:
        specs: The trials.
        images: How many there are to train on, by `fit_on`.
        channels: Of an image.

    Raises:
        UserError: A batch of more images than there are, or a built-in likelihood for images of other channels.
    """
    for spec in specs:
        takes = spec.likelihood_args.get("channels") if spec.likelihood in catalog.LIKELIHOODS else None
        if fault := too_many_at_once(spec, images[spec.fit_on]) or other_channels(spec, takes, channels):
            raise UserError(fault)


def published_images(spec: "TrialSpec") -> int:
    """Return how many images a trial on a published data set trains on, at most; 0 if its data are others."""
    entry = catalog.DATASETS.get(spec.dataset)
    return entry.train + (entry.validation if spec.fit_on != "train" else 0) if entry else 0


def least_memory(spec: "TrialSpec", images: int = 0, pixels: int = 0) -> tuple[int, str]:
    """Return the bytes that a trial's training surely takes, and what for in words.

    They are its weights with their gradients between layers whose widths are known, and the noise of a chunk of T steps,
    (T, B, L, Z).

    Args:
        spec: The trial.
        images: How many it trains on; 0 if that is not known, of data that are not published: then a step may have fewer than the
            spec says, and an epoch has at least one step.
        pixels: Values of an image; 0 if that is not known.
    """
    images = images or published_images(spec)
    batch = spec.batch_size if images else min(spec.batch_size, type(spec).batch_size)
    steps = min(CHUNK, math.ceil(images / batch)) if images else 1
    network = catalog.NETWORKS.get(spec.network)
    widths = spec.hidden if network and network.hidden and spec.hidden else ()
    layers = (pixels, *widths) if pixels and widths else widths
    # The decoder mirrors the encoder, which ends in the mean and the variance of each latent.
    weights = 2 * sum(a * b for a, b in pairwise(layers)) + (3 * widths[-1] * spec.latent if widths else 0)
    of_weights, of_noise = 2 * FLOAT * weights, FLOAT * steps * batch * spec.num_samples * spec.latent
    which = "the weights" if pixels else "the weights between these widths"
    between = f"{size(of_weights)} for {which} and their gradients, " if widths else ""
    noise = "a step's noise of" if steps == 1 else f"the noise of {steps} steps of"
    return of_weights + of_noise, (
        f"{in_words(spec)} takes more than {size(of_weights + of_noise)}: "
        f"{between}{size(of_noise)} for {noise} {step_in_words(spec, batch)}"
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
