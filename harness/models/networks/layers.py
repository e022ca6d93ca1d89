"""Building blocks of the networks. Shapes: S lanes, B images, P pixels, K outputs per pixel, Z latents."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.models.activations import Activation, gain, identity, lanewise


class LaneLinear(nn.Module):
    """S affine maps, one per lane, computed as one batched product.

    Attributes:
        weight: (S, inputs, outputs).
        bias: (S, 1, outputs).
        gains: The factor on each lane's initial weights, S of them: the gain of the activation in front of this map; 1 by default.
    """

    def __init__(self, lanes: int, inputs: int, outputs: int, gains: Sequence[float] | None = None) -> None:
        super().__init__()
        self.gains = gains or [1.0] * lanes
        self.weight = nn.Parameter(torch.empty(lanes, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(lanes, 1, outputs))

    @torch.no_grad()
    def reset(self, lane: int, generator: torch.Generator) -> None:
        """Draw one lane's weights and biases as torch.nn.Linear does, uniform within 1 / sqrt(inputs), the weights times the gain.

        They are drawn on the CPU whatever the device, so that a seed gives the same start everywhere. Initial biases of 0 would
        cost 2 to 8 nats (docs/log.md): the decoder then learns black by moving all codes to one side instead.
        """
        bound = self.weight.shape[1] ** -0.5
        weight = torch.empty(self.weight.shape[1:]).uniform_(-bound, bound, generator=generator)
        self.weight[lane] = self.gains[lane] * weight
        self.bias[lane] = torch.empty(self.bias.shape[1:]).uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return x[s] @ weight[s] + bias[s] for every lane s: (S, B, inputs) to (S, B, outputs)."""
        return torch.baddbmm(self.bias, x, self.weight)


class LaneNorm(nn.Module):
    """S layer normalisations (Ba et al., 2016, https://arxiv.org/abs/1607.06450), each with weights and biases of its own.

    Attributes:
        weight: (S, 1, width), 1 at the start.
        bias: (S, 1, width), 0 at the start.
    """

    def __init__(self, lanes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(lanes, 1, width))
        self.bias = nn.Parameter(torch.zeros(lanes, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (S, B, width) with mean 0 and variance 1 over the units of every image, then scaled and shifted."""
        return F.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class MLP(nn.Module):
    """Affine maps of widths w0 to w1 to ... to wn, with an activation after each but the last.

    Args:
        widths: n + 1 of them.
        activations: n - 1 lists of activation names, one name per lane in each.
        norm: True for a `LaneNorm` between each map and its activation.
        residual: True to add to the output of each activation what came into its map; from an image or from latents, and where the
            width changes, by a linear map (He et al., 2015, https://arxiv.org/abs/1512.03385).
    """

    def __init__(
        self, widths: Sequence[int], activations: Sequence[Sequence[str]], *, norm: bool = False, residual: bool = False
    ) -> None:
        super().__init__()
        lanes = len(activations[0])
        before = (("identity",) * lanes, *activations)
        self.layers = nn.ModuleList(
            LaneLinear(lanes, a, b, [gain(f) for f in names]) for a, b, names in zip(widths[:-1], widths[1:], before, strict=True)
        )
        self.activations = [lanewise(names) for names in activations] + [identity]
        hidden = widths[1:-1]
        self.norms = nn.ModuleList(LaneNorm(lanes, w) if norm else nn.Identity() for w in hidden)
        self.skips = nn.ModuleList(
            nn.Identity() if a == b else LaneLinear(lanes, a, b) for a, b in zip(widths[:-2], hidden, strict=True) if residual
        )

    @property
    def chain(self) -> list[tuple[LaneLinear, Activation]] | None:
        """The affine maps, each with the activation behind it, if there is nothing else between them; otherwise None."""
        if self.skips or not all(isinstance(norm, nn.Identity) for norm in self.norms):
            return None
        return list(zip(cast(Iterable[LaneLinear], self.layers), self.activations, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last affine map: (S, B, w0) to (S, B, wn)."""
        for i, norm in enumerate(self.norms):
            hidden = self.activations[i](norm(self.layers[i](x)))
            x = self.skips[i](x) + hidden if self.skips else hidden
        last: Tensor = self.layers[-1](x)
        return last


class Encoder(nn.Module):
    """An encoder whose body maps (S, B, P) to (S, B, 2 Z): the mean, then the log variance of q(z|x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log variance of q(z|x), (S, B, Z) each, for x (S, B, P)."""
        mean, log_var = self.body(x).chunk(2, dim=-1)
        return mean, log_var


class Decoder(nn.Module):
    """A decoder whose body maps (S, B, Z) to (S, B, K P): the K parameters of p(x|z), one after another."""

    def __init__(self, body: nn.Module, outputs: int) -> None:
        super().__init__()
        self.body = body
        self.outputs = outputs

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the K parameters of p(x|z), (S, B, P) each, for z (S, B, Z)."""
        out: Tensor = self.body(z)
        return out.chunk(self.outputs, dim=-1)
