"""What a histogram of levels gives without any latent, for a model to beat. Shapes: N images, P values of an image."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from harness.data import Data, Split
from harness.metrics.bits_per_dim import BINS, LEVELS, PSEUDO_COUNT

INDICES = 2**23  # of values in a block: 64 MiB
VALUES = 2**14  # of an image whose histograms are held at a time: 32 MiB, and as much for each step of the arithmetic


def level_bits(train: Tensor, levels: Tensor) -> float:
    """Return the bits/dim of levels under one histogram of all training levels, plus 0.1 each; both uint8 (N, P)."""
    counts, wanted = (torch.bincount(v.flatten(), minlength=LEVELS) for v in (train, levels))
    return _bits(counts[None], wanted[None])


def value_bits(train: Split, split: Split) -> float:
    """Return the bits/dim of a split's levels under a histogram of training levels, plus 0.1 each, for each pixel and channel.

    It is the code length of a model without latents whose values are independent; what a model must beat to say that it has learned
    more than each value's distribution.
    """
    parts = zip(*(torch.split(s.levels, VALUES, 1) for s in (train, split)), strict=True)
    bits = [_bits(_by_value(known), _by_value(wanted)) * wanted.shape[1] for known, wanted in parts]
    return math.fsum(bits) / split.levels.shape[1]


def notes(data: Data) -> Iterator[str]:
    """Yield what to know of bits/dim on a data set before it is trained on: what to beat, and a common head of few counts."""
    yield (
        f"to beat without a latent: {value_bits(data.train, data.test):.3f} bits/dim on test images, "
        "by a histogram of levels for each pixel and channel"
    )
    values, cells = data.train.levels.numel(), BINS * LEVELS
    if values < cells:
        yield (
            f"the common head counts {cells:,} cells on {values:,} training values: its bits/dim are higher than more images would "
            "give, for every arm"
        )


def _by_value(levels: Tensor) -> Tensor:
    """Return how often each level occurs in each value, (P, 256), given levels uint8 (N, P)."""
    values = levels.shape[1]
    counts = torch.zeros(values * LEVELS, dtype=torch.int64, device=levels.device)
    first = torch.arange(values, device=levels.device) * LEVELS
    for block in torch.split(levels, max(1, INDICES // values)):
        counts += torch.bincount((first + block).flatten(), minlength=values * LEVELS)
    return counts.view(values, LEVELS)


def _bits(counts: Tensor, wanted: Tensor) -> float:
    """Return the mean of -log2 p over levels that occur so often, `wanted` (..., 256), with p from `counts` (..., 256) plus 0.1."""
    p = counts.double() + PSEUDO_COUNT
    return (-(wanted * (p / p.sum(-1, keepdim=True)).log2()).sum() / wanted.sum()).item()
