"""Activations by name, and what stands in front of the next layer's initial weights because of them.

To add an activation, write a function of a tensor and a line in `ACTIVATIONS`; the initial gain follows from the function.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.models.lanes import runs

Activation = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """x. Also what stands after a layer that has no activation."""
    return x


@cache
def gain(activation: str) -> float:
    """1 / sqrt(E[f(x)^2]) for x ~ N(0, 1): the factor on weights that makes up for what the activation takes from a signal's size.

    He et al., 2015 (https://arxiv.org/abs/1502.01852) derive sqrt(2) for ReLU this way; the integral gives it for any f.

    >>> round(gain("relu"), 6), round(gain("identity"), 6)
    (1.414214, 1.0)
    """
    x, dx = torch.linspace(-12, 12, 240_001, dtype=torch.float64), 1e-4
    density = torch.exp(-x.square() / 2) / np.sqrt(2 * np.pi)
    return float((ACTIVATIONS[activation](x).square() * density).sum().mul(dx).rsqrt())


def lanewise(names: Sequence[str]) -> Activation:
    """The activation of every lane, by name: one function where all are equal, else each run of equal lanes takes its own."""
    parts = [(ACTIVATIONS[name], where) for name, where in runs(names)]
    if len(parts) == 1:
        return parts[0][0]
    return lambda x: torch.cat([f(x[where]) for f, where in parts])


ACTIVATIONS: Mapping[str, Activation] = {
    "elu": F.elu,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "identity": identity,
}
