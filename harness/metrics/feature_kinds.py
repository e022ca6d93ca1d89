"""The kinds of networks that features come from, untrained. Shapes: B images, C channels, H by W pixels, P = C H W, F features."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from harness.data import Data
from harness.scores import FEATURES
from harness.spec import DATA_NEEDS


class Kind(NamedTuple):
    """A kind of network.

    Attributes:
        quality: What `FeatureNet.quality` is, and its name in a file.
        infix: Of a file's name; empty for the kind that is meant where none is named.
        article: Before the kind's name.
        rate: The highest learning rate. At 3e-3 an autoencoder of digits has twice the error that it has at 1e-2.
        last: Makes the last module, from features (B, F), for a data set.
        loss: Of the last module's output (B, ...) for images (B, P) of the classes (B,), numbered as the outputs are.
        judge: The quality of each image, (B,), from the same.
    """

    quality: str
    infix: str
    article: str
    rate: float
    last: Callable[[Data], nn.Module]
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    judge: Callable[[Tensor, Tensor, Tensor], Tensor]


class _Crop(nn.Module):
    """The upper left corner of images."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, H, W) with fewer rows and columns."""
        return x[..., : self.height, : self.width]


def _quarter(data: Data) -> tuple[int, int]:
    """Return height and width of the images after two strides of two."""
    _, height, width = data.image_shape
    return math.ceil(height / 4), math.ceil(width / 4)


def _decoder(data: Data) -> nn.Sequential:
    """Return an untrained decoder of features: one affine map and two convolutions, each of which doubles height and width.

    Nothing squashes its output: behind a sigmoid, dark images were not learnt beyond their mean.
    """
    channels, height, width = data.image_shape
    high, wide = _quarter(data)
    return nn.Sequential(
        nn.Linear(FEATURES, 32 * high * wide),
        nn.SiLU(),
        nn.Unflatten(1, (32, high, wide)),
        nn.Conv2d(32, 4 * 16, 3, padding=1),
        nn.PixelShuffle(2),
        nn.SiLU(),
        nn.Conv2d(16, 4 * channels, 3, padding=1),
        nn.PixelShuffle(2),
        _Crop(height, width),
        nn.Flatten(),
    )


KINDS: Mapping[str, Kind] = {
    "classifier": Kind(
        quality="accuracy",
        infix="",
        article="a",
        rate=3e-3,
        last=lambda data: nn.Linear(FEATURES, data.counts.classes),
        loss=lambda out, x, labels: F.cross_entropy(out, labels),
        judge=lambda out, x, labels: (out.argmax(1) == labels).double(),
    ),
    "autoencoder": Kind(
        quality="error",
        infix="-autoencoder",
        article="an",
        rate=1e-2,
        last=_decoder,
        loss=lambda out, x, labels: F.mse_loss(out, x),
        judge=lambda out, x, labels: (out - x).square().mean(1).double(),
    ),
}


def kind_of(data: Data) -> str:
    """Return the kind of network that a data set has."""
    return "classifier" if DATA_NEEDS["labels"].met(data.counts) else "autoencoder"


def network_of(data: Data) -> nn.Sequential:
    """Return an untrained network: two strided convolutions, 64 features, and what its kind does with them.

    The activation is SiLU, because on MNIST ReLU left 11 of the 64 features dead and ELU doubled the Frechet distance between two
    halves of the training set.
    """
    return nn.Sequential(
        nn.Unflatten(1, data.image_shape),
        nn.Conv2d(data.image_shape[0], 16, 5, stride=2, padding=2),
        nn.SiLU(),
        nn.Conv2d(16, 32, 5, stride=2, padding=2),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(32 * math.prod(_quarter(data)), FEATURES),
        nn.SiLU(),
        KINDS[kind_of(data)].last(data),
    )
