"""Scores of the user's own, computed from a trained trial. Shapes: N images, C channels, H by W pixels, Z latents."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness import references
from harness.data import Data, Split, as_images
from harness.errors import UserError
from harness.metrics.inputs import encode, encodings, model_inputs, prior_samples
from harness.metrics.memory import mean_images
from harness.models.vae import VAE
from harness.scores import Score
from harness.spec import MEETS, TrialSpec, unmet


@dataclass(frozen=True)
class Trained:
    """A trained trial, as a score of the user's own gets it.

    All images are floats on [0, 1], on the model's device; where they are said to be (N, H, W), they are (N, C, H, W) if they have
    more than one channel. Rows and columns are the last two dimensions of either, so what counts from the end takes both.

    Attributes:
        spec: The trial.
        vae: Its model, in a single lane.
        data: Its data set, on the model's device: `data.train`, `data.validation`, `data.test`, each with `levels`, uint8
            (N, C H W), and `labels`, int64 (N,) or None.
    """

    spec: TrialSpec
    vae: VAE
    data: Data

    def images(self, split: Split) -> Tensor:
        """Return the images of a split, (N, H, W)."""
        return as_images(split.levels.float() / 255, self.data.image_shape)

    def encode(self, split: Split) -> tuple[Tensor, Tensor]:
        """Return the mean and the log variance of q(z|x) for the images of a split, (N, Z) each."""
        return encode(self.spec, self.vae, split)

    def reconstruct(self, split: Split) -> Tensor:
        """Return the mean images decoded at the means of q, (N, H, W)."""
        return as_images(encodings(self.vae, model_inputs(self.spec, split)).image, self.data.image_shape)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Return the mean images of latents z (N, Z), (N, H, W)."""
        return as_images(mean_images(self.vae, z[None]).clamp(0, 1), self.data.image_shape)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Return the mean images of n draws from the prior, (n, H, W); the same for every trial of equal Z."""
        return as_images(prior_samples(self.vae, n, self.spec.latent, seed), self.data.image_shape)


def own_scores(trained: Trained, images: tuple[str, ...]) -> dict[str, float]:
    """Return the values of a trial's own scores by key, of those on images of these splits whose needs it meets.

    Raises:
        UserError: A function returns something else than finite numbers by key, its own key among them.
    """
    values: dict[str, float] = {}
    for reference in trained.spec.metrics:
        row: Score = references.resolve(reference)
        if row.images in images and meets(row, trained):
            values |= measured(row, references.label(reference), trained)
    return values


def meets(row: Score, trained: Trained) -> bool:
    """Return whether a trial has what a score needs, as far as that is known before it is computed."""
    by_spec = all(MEETS[need](trained.spec) for need in row.needs if need in MEETS)
    return by_spec and not unmet(row.needs, trained.data.counts)


def measured(row: Score, name: str, trained: Trained) -> dict[str, float]:
    """Return what the function of a score measures of a trained trial.

    Raises:
        UserError: It returns something else than a finite number for the score's own key, and for keys behind that and a slash.
    """
    given: Any = row.compute(trained) if row.compute else None
    if not isinstance(given, dict) or row.key not in given:
        raise UserError(f"score {name} must return a dict with {row.key!r}, got {given!r}")
    for key, value in given.items():
        if key != row.key and not str(key).startswith(f"{row.key}/"):
            raise UserError(f"score {name} must return {row.key!r} alone, or {row.key + '/...'!r} beside it; got {key!r} too")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"score {name}: {key!r} must be a finite number, got {value!r}")
    return {key: float(value) for key, value in given.items()}
