"""Activations, LaneLinear, encoders and decoders. Shapes: S lanes, B images, P pixels, K outputs per pixel, Z latents."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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

    Lane s computes x[s] @ weight[s] + bias[s]. `gain` is that of the activation in front of the layer.
    """

    def __init__(self, lanes: int, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
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
        self.weight[lane] = self.gain * weight
        self.bias[lane] = torch.empty(self.bias.shape[1:]).uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class MLP(nn.Module):
    """Affine maps with an activation after each but the last: widths (w0, ..., wn), names of n - 1 activations."""

    def __init__(self, lanes: int, widths: Sequence[int], activations: Sequence[str]) -> None:
        super().__init__()
        before = ("identity", *activations)
        self.layers = nn.ModuleList(
            LaneLinear(lanes, a, b, gain(f)) for a, b, f in zip(widths[:-1], widths[1:], before, strict=True)
        )
        self.activations = [ACTIVATIONS[f] for f in activations] + [identity]

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
    """What a network must fit: lanes, pixels per image, latents, outputs per pixel, the activation's name, hidden widths."""

    lanes: int
    pixels: int
    latent: int
    params: int
    activation: str
    hidden: tuple[int, ...]


def mlp(sizes: Sizes) -> tuple[Encoder, Decoder]:
    """The regular pair: hidden widths in the encoder, mirrored in the decoder, an activation after every hidden layer."""
    return _pair(sizes, sizes.hidden, [sizes.activation] * len(sizes.hidden))


def reference(sizes: Sizes) -> tuple[Encoder, Decoder]:
    """The reference model, 784-256-64-32-2z and z-32-64-256-784: 439,956 parameters on MNIST at z = 2.

    Its quirk is kept: the decoder's first layer (z to 32) has no activation after it.
    """
    return _pair(sizes, (256, 64, 32), ["identity", sizes.activation, sizes.activation])


def _pair(sizes: Sizes, hidden: tuple[int, ...], decoder_activations: Sequence[str]) -> tuple[Encoder, Decoder]:
    down = (sizes.pixels, *hidden, 2 * sizes.latent)
    up = (sizes.latent, *reversed(hidden), sizes.params * sizes.pixels)
    return (
        Encoder(MLP(sizes.lanes, down, [sizes.activation] * len(hidden))),
        Decoder(MLP(sizes.lanes, up, decoder_activations), sizes.params),
    )


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
