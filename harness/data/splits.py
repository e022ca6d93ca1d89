"""Data sets as uint8 tensors in three fixed splits. Shapes: N images, C channels, H rows, W columns, P = C H W values."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from harness.data.parts import Part, Parts
from harness.kernels.uniform import uniform
from harness.spec import Counts


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

    @classmethod
    def of(cls, part: Part) -> "Split":
        """Return a split as it was read, in tensors on the CPU that share its memory where they may."""
        return cls(part.name, _tensor(part.levels), None if part.labels is None else _tensor(part.labels))

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

    @classmethod
    def of(cls, parts: Parts) -> "Data":
        """Return a data set as it was read, in tensors on the CPU."""
        splits = {part.name: Split.of(part) for part in (parts.train, parts.validation, parts.test)}
        return cls(name=parts.name, image_shape=parts.image_shape, digest=parts.digest, disjoint=parts.disjoint, **splits)

    @property
    def counts(self) -> Counts:
        """How many images and classes there are, by which some scores are left out."""
        classes = 0 if self.train.labels is None else len(self.train.labels.unique())
        return Counts(len(self.train), len(self.test), classes)

    @property
    def images_to_fit(self) -> dict[str, int]:
        """How many images train, by a trial's `fit_on`."""
        return {"train": len(self.train), "train+validation": len(self.train) + len(self.validation)}

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


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    """Return an array as a tensor: a copy if it cannot be written to or has strides that torch does not take."""
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


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
