"""Helpers of several figures: the subject, and the choice of images and latents to show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from harness.data import Data, Split
from harness.metrics import Evaluation
from harness.models.vae import VAE
from harness.spec import TrialSpec

PER_CLASS = 400  # points per class in a scatter plot: more would hide each other
MOST_CLASSES = 10  # of which images are shown; of images without labels as many are


@dataclass(frozen=True)
class Subject:
    """A trained trial to draw.

    Attributes:
        spec: The trial.
        vae: Its model, of one lane.
        data: Its data set.
        evaluation: Its scores and encodings.
        history: Its metrics by key, one row per epoch.
    """

    spec: TrialSpec
    vae: VAE
    data: Data
    evaluation: Evaluation
    history: Sequence[Mapping[str, float]]


def examples(split: Split, per_class: int = 1, most: int = MOST_CLASSES) -> list[int]:
    """Return the indices of the first images of each of the first classes, class by class: the same images for every trial.

    Of fewer than `most` classes they are more of each, and of images without labels the first ones: about as many in all.
    """
    if split.labels is None:
        return list(range(min(len(split), most * per_class)))
    classes = sorted(set(split.labels.tolist()))[:most]
    each = most * per_class // len(classes)
    return [int(i) for k in classes for i in (split.labels == k).nonzero()[:each, 0]]


def scatter_points(split: Split) -> torch.Tensor:
    """Return the indices of the images that a scatter plot of latents shows, the first `PER_CLASS` of every class."""
    classes = MOST_CLASSES if split.labels is None else int(split.labels.max()) + 1
    return torch.tensor(examples(split, PER_CLASS, classes))


def axes_to_show(evaluation: Evaluation) -> tuple[int, int]:
    """Return the indices of the two latents with the largest KL, in ascending order; the same one twice if there is only one."""
    top = evaluation.kl_per_dimension.topk(min(2, len(evaluation.kl_per_dimension))).indices.sort().values.tolist()
    return top[0], top[-1]


@torch.no_grad()
def decode(vae: VAE, z: torch.Tensor, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Return the mean images of z (N, Z), (N, C, H, W) on [0, 1]."""
    device = next(vae.parameters()).device
    mean = vae.likelihood.mean(*vae.decode(z.to(device)[None]))[0]
    return mean.clamp(0, 1).cpu().view(-1, *image_shape).numpy()
