"""Data sets as uint8 images in three fixed splits. Shapes: N images, C channels, H rows, W columns, P = C H W values."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.kernels.uniform import uniform
from harness.spec import Counts

Say = Callable[[str], None]


@dataclass(frozen=True)
class Split:
    """A part of a data set.

    Attributes:
        name: train, validation, test or train+validation.
        levels: Images as levels 0..255, one channel after another, uint8 (N, P).
        labels: Their classes, int64 (N,); None if there are none.
    """

    name: str
    levels: Tensor
    labels: Tensor | None

    def to(self, device: torch.device) -> "Split":
        """Return the same split with its tensors on this device."""
        return Split(self.name, self.levels.to(device), None if self.labels is None else self.labels.to(device))

    @property
    def classes(self) -> Tensor:
        """The labels, or as if all images were of one class if there are none, int64 (N,)."""
        return torch.zeros(len(self.levels), dtype=torch.int64) if self.labels is None else self.labels

    def __len__(self) -> int:
        return len(self.levels)


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set in its three fixed splits.

    Attributes:
        name: Of the data set.
        image_shape: Channels, height and width of an image, (C, H, W).
        train: Images to train on.
        validation: Images by which settings are chosen.
        test: Images for final scores.
        digest: sha256 of the files' bytes and of the splits, in hex digits.
        disjoint: True if whoever made the splits has seen to it that no image is in two of them.
    """

    name: str
    image_shape: tuple[int, int, int]
    train: Split
    validation: Split
    test: Split
    digest: str
    disjoint: bool = False

    @property
    def counts(self) -> Counts:
        """How many images and classes there are, by which some scores are left out."""
        classes = 0 if self.train.labels is None else len(self.train.labels.unique())
        return Counts(len(self.train), len(self.test), classes)

    def fit_on(self, which: str) -> Split:
        """Return the images to train on: those of "train", or those of "train+validation" joined in this order."""
        if which == "train":
            return self.train
        both = (self.train, self.validation)
        labels = [s.labels for s in both if s.labels is not None]
        return Split(which, torch.cat([s.levels for s in both]), torch.cat(labels) if labels else None)

    def to(self, device: torch.device) -> "Data":
        """Return the same data set with the tensors of all splits on this device."""
        train, validation, test = (s.to(device) for s in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)


def as_images(flat: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Return flat images (N, P) as (N, H, W) if they have one channel, else as (N, C, H, W)."""
    channels, height, width = image_shape
    return flat.view(-1, height, width) if channels == 1 else flat.view(-1, channels, height, width)


def frozen_noise(split: Split) -> Tensor:
    """Return uniform noise on [0, 1), (N, P), on the split's device, for binarising or dequantising the split in an evaluation.

    The seed is a hash of the split's name, so the noise is the same for every trial.
    """
    seed = int.from_bytes(hashlib.sha256(f"frozen noise/{split.name}".encode()).digest()[:7])
    u = uniform(torch.Generator().manual_seed(seed), *split.levels.shape)
    return u.to(split.levels.device)
