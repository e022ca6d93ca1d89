"""What networks are built of. Shapes: S lanes, B images, P pixels, K outputs per pixel, Z latents."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.models.activations import gain, identity, lanewise


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
