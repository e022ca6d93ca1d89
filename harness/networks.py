"""Activations, LaneLinear, encoders and decoders. Shapes: S lanes, B images, P pixels, K outputs per pixel, Z latents."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.lanes import runs

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


class LaneLinear(nn.Module):
    """S affine maps side by side: (S, B, in) to (S, B, out), one batched product.

    Lane s computes x[s] @ weight[s] + bias[s]. `gains`, one per lane, are those of the activations in front; 1 unless said.
    """

    def __init__(self, lanes: int, inputs: int, outputs: int, gains: Sequence[float] | None = None) -> None:
        super().__init__()
        self.gains = gains or [1.0] * lanes
        self.weight = nn.Parameter(torch.empty(lanes, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(lanes, 1, outputs))

    @torch.no_grad()
    def reset(self, lane: int, generator: torch.Generator) -> None:
        """Draw lane's weights and biases as torch.nn.Linear does, uniform within 1 / sqrt(inputs), the weights times the gain.

        Drawn on the CPU whatever the device, so that a seed gives the same start everywhere. Biases at 0 cost 2 to 8 nats
        (docs/log.md): the decoder then learns black by moving all codes to one side instead.
        """
        bound = self.weight.shape[1] ** -0.5
        weight = torch.empty(self.weight.shape[1:]).uniform_(-bound, bound, generator=generator)
        self.weight[lane] = self.gains[lane] * weight
        self.bias[lane] = torch.empty(self.bias.shape[1:]).uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def lanewise(names: Sequence[str]) -> Activation:
    """The activation of every lane, by name: one function where all are equal, else each run of equal lanes takes its own."""
    parts = [(ACTIVATIONS[name], where) for name, where in runs(names)]
    if len(parts) == 1:
        return parts[0][0]
    return lambda x: torch.cat([f(x[where]) for f, where in parts])


class MLP(nn.Module):
    """Affine maps with activations after each but the last: widths (w0, ..., wn), n - 1 times a name per lane."""

    def __init__(self, widths: Sequence[int], activations: Sequence[Sequence[str]]) -> None:
        super().__init__()
        lanes = len(activations[0])
        before = (("identity",) * lanes, *activations)
        self.layers = nn.ModuleList(
            LaneLinear(lanes, a, b, [gain(f) for f in names]) for a, b, names in zip(widths[:-1], widths[1:], before, strict=True)
        )
        self.activations = [lanewise(names) for names in activations] + [identity]

    def forward(self, x: Tensor) -> Tensor:
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = activation(layer(x))
        return x


class Encoder(nn.Module):
    """x (S, B, P) to the mean and the log variance of q(z|x), each (S, B, Z)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.body(x).chunk(2, dim=-1)
        return mean, log_var


class Decoder(nn.Module):
    """z (S, B, Z) to the K parameters of p(x|z), each (S, B, P)."""

    def __init__(self, body: nn.Module, params: int) -> None:
        super().__init__()
        self.body = body
        self.params = params

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        return self.body(z).chunk(self.params, dim=-1)


class Sizes(NamedTuple):
    """What a network must fit: pixels per image, latents, outputs per pixel, hidden widths, the activation's name in every lane."""

    pixels: int
    latent: int
    params: int
    hidden: tuple[int, ...]
    activations: tuple[str, ...]


def mlp(sizes: Sizes) -> tuple[Encoder, Decoder]:
    """The regular pair: hidden widths in the encoder, mirrored in the decoder, an activation after every hidden layer."""
    return _pair(sizes, sizes.hidden, [sizes.activations] * len(sizes.hidden))


def reference(sizes: Sizes) -> tuple[Encoder, Decoder]:
    """The reference model, 784-256-64-32-2z and z-32-64-256-784: 439,956 parameters on MNIST at z = 2.

    Its quirk is kept: the decoder's first layer (z to 32) has no activation after it.
    """
    return _pair(sizes, (256, 64, 32), [("identity",) * len(sizes.activations), sizes.activations, sizes.activations])


def _pair(sizes: Sizes, hidden: tuple[int, ...], decoder_activations: Sequence[tuple[str, ...]]) -> tuple[Encoder, Decoder]:
    down = (sizes.pixels, *hidden, 2 * sizes.latent)
    up = (sizes.latent, *reversed(hidden), sizes.params * sizes.pixels)
    return Encoder(MLP(down, [sizes.activations] * len(hidden))), Decoder(MLP(up, decoder_activations), sizes.params)


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
NETWORKS: Mapping[str, Callable[[Sizes], tuple[Encoder, Decoder]]] = {"reference": reference, "mlp": mlp}
