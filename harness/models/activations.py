"""Activations by name, and the factor by which each scales the initial weights of the layer after it.

To add an activation, add a line to catalog.py that says where the function is; `gain` computes the factor from it.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from harness import catalog
from harness.models.lanes import runs

Activation = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """Return x unchanged: the activation of a layer that has none."""
    return x


@cache
def gain(activation: str) -> float:
    """Return 1 / sqrt(E[f(x)^2]) for x ~ N(0, 1) and the activation f of this name.

    This factor on the initial weights of the next layer restores the second moment that the activation changes. He et al., 2015
    (https://arxiv.org/abs/1502.01852) derive sqrt(2) for ReLU this way; here the integral is computed numerically for any f.

    >>> round(gain("relu"), 6), round(gain("identity"), 6)
    (1.414214, 1.0)
    """
    x, dx = torch.linspace(-12, 12, 240_001, dtype=torch.float64, device="cpu"), 1e-4
    density = torch.exp(-x.square() / 2) / np.sqrt(2 * np.pi)
    return float((catalog.find("activation", activation)(x).square() * density).sum().mul(dx).rsqrt())


def lanewise(names: Sequence[str]) -> Activation:
    """Return one function of (S, ...) that applies to each lane the activation of its name, given S names.

    If all names are equal, it is that activation itself; otherwise neighbouring lanes of equal names are computed together.
    """
    parts = [(catalog.find("activation", name), lanes) for name, lanes in runs(names)]
    if len(parts) == 1:
        activation: Activation = parts[0][0]
        return activation
    return lambda x: torch.cat([f(x[lanes]) for f, lanes in parts])
