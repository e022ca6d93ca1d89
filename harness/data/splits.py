"""What a data set is: uint8 images in three fixed splits. Shapes: N images, P pixels."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Say = Callable[[str], None]


@dataclass(frozen=True)
class Split:
    """Images as grey levels 0..255, uint8 (N, P), and their classes, int64 (N,). `name` is train, validation or test."""

    name: str
    levels: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Split":
        """The same split, resident on the device."""
        return Split(self.name, self.levels.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.levels)


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set in its three fixed splits. `digest` names the bytes and the splits; `side` is the image's width."""

    name: str
    side: int
    train: Split
    validation: Split
    test: Split
    digest: str

    def fit_on(self, which: str) -> Split:
        """The images to train on: `train`, or `train+validation`."""
        if which == "train":
            return self.train
        both = (self.train, self.validation)
        return Split(which, torch.cat([s.levels for s in both]), torch.cat([s.labels for s in both]))

    def to(self, device: torch.device) -> "Data":
        """All splits resident on the device."""
        train, validation, test = (s.to(device) for s in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)


def frozen_noise(split: Split) -> Tensor:
    """u on [0, 1), (N, P), the same for every trial: what an evaluation binarises or dequantises a split with."""
    seed = int.from_bytes(hashlib.sha256(f"frozen noise/{split.name}".encode()).digest()[:7])
    u = torch.rand(split.levels.shape, generator=torch.Generator().manual_seed(seed))
    return u.to(split.levels.device)
