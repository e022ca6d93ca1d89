"""Convolutional encoders and decoders for images of any shape, as ordinary modules for one model.

Each strided convolution halves rows and columns, rounded up, and each transposed one goes back to the size before.
Shapes: B images, C channels, H rows, W columns, Z latents, K outputs per value.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 2


class Function(nn.Module):
    """A function of a tensor as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return the function's value."""
        return self.function(x)


class Codes(nn.Sequential):
    """Layers whose output (B, 2 Z) is the mean, then the log variance of q(z|x)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log variance of q(z|x), (B, Z) each, for images x (B, C, H, W)."""
        codes: Tensor = super().forward(x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        mean, log_var = codes.chunk(2, dim=1)
        return mean, log_var


class Rows(nn.Module):
    """From (B, C, H, W) to (B, H W C), without a copy where the channels lie last in memory, as fast convolutions leave them."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the values of x in the order of rows, columns and channels."""
        return x.permute(0, 2, 3, 1).flatten(1)


class Grid(nn.Module):
    """From (B, H W C) to (B, C, H, W) with the channels last in memory: the inverse of `Rows`."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.shape = (*size, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the values of x as channels of rows and columns."""
        grid: Tensor = x.unflatten(1, self.shape)
        return grid.permute(0, 3, 1, 2)


class Halve(nn.Conv2d):
    """A convolution of stride 2 from (B, inputs, H, W) to (B, outputs, ceil(H/2), ceil(W/2)).

    If the kernel is even, odd sizes get one more row or column of zeros, so that every pixel is seen.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, size: tuple[int, int]) -> None:
        super().__init__(inputs, outputs, kernel, stride=STRIDE, padding=(kernel - 1) // 2)
        rows, columns = ((kernel + 1) % 2 * (n % 2) for n in size)
        self.more = (0, columns, 0, rows)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x."""
        return super().forward(F.pad(x, self.more) if any(self.more) else x)


class Double(nn.ConvTranspose2d):
    """A transposed convolution of stride 2 from (B, inputs, ceil(H/2), ceil(W/2)) to (B, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, size: tuple[int, int]) -> None:
        super().__init__(inputs, outputs, kernel, stride=STRIDE, padding=(kernel - 1) // 2, output_padding=kernel % 2)
        self.size = size

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the transposed convolution of x, without what is beyond an odd size."""
        out = super().forward(x)
        return out if out.shape[2:] == self.size else out[:, :, : self.size[0], : self.size[1]]


@torch.no_grad()
def draw(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """Draw a layer's weights and biases uniform within 1 / sqrt(values that an output is a sum of), the weights times the gain.

    This is torch's own rule, except for transposed convolutions, in which torch counts the outputs of an input instead. `gain` is
    that of the activation in front of the layer. Return the layer.
    """
    if isinstance(layer, nn.ConvTranspose2d):
        summed = layer.in_channels * math.prod(layer.kernel_size) / math.prod(layer.stride)
    else:
        summed = layer.weight[0].numel()
    bound = summed**-0.5
    layer.weight.uniform_(-gain * bound, gain * bound)
    if layer.bias is not None:
        layer.bias.uniform_(-bound, bound)
    return layer


def halvings(size: tuple[int, int], times: int) -> list[tuple[int, int]]:
    """Return rows and columns before and after each of so many halvings.

    >>> halvings((28, 25), 2)
    [(28, 25), (14, 13), (7, 7)]
    """
    sizes = [size]
    for _ in range(times):
        rows, columns = sizes[-1]
        sizes.append((-(-rows // STRIDE), -(-columns // STRIDE)))
    return sizes


class Block(nn.Module):
    """A residual block: x plus a convolution of 3 x 3 and one of 1 x 1, each behind an activation.

    What is added comes from a convolution, not from an activation, so that it may have either sign (He et al., 2016,
    https://arxiv.org/abs/1603.05027). (B, C, H, W) stays.
    """

    def __init__(self, channels: int, activation: Callable[[Tensor], Tensor], gain: float) -> None:
        super().__init__()
        self.activation = activation
        self.wide = draw(nn.Conv2d(channels, channels, 3, padding=1), gain)
        self.narrow = draw(nn.Conv2d(channels, channels, 1), gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return x and what the block adds to it."""
        added: Tensor = self.narrow(self.activation(self.wide(self.activation(x))))
        return x + added


def conv(
    image_shape: tuple[int, int, int],
    latent: int,
    outputs: int,
    *,
    activation: Callable[[Tensor], Tensor],
    gain: float,
    widths: Sequence[int],
    kernel: int,
    blocks: int = 0,
) -> tuple[nn.Module, nn.Module]:
    """Return an encoder of strided convolutions and a decoder of transposed ones that mirrors it.

    Args:
        image_shape: Channels, height and width of an image.
        latent: Latents.
        outputs: Decoder outputs per value.
        activation: The function in front of every layer but the first of encoder and decoder.
        gain: The factor on the initial weights of a layer behind it (`harness.models.activations.gain`).
        widths: Channels after each of the encoder's strided convolutions.
        kernel: Rows and columns of their kernels, at least 2.
        blocks: Residual blocks of encoder and decoder each, where rows and columns are fewest (as in van den Oord et al., 2017,
            https://arxiv.org/abs/1711.00937).
    """
    channels, *size = image_shape
    sizes, wide = halvings((size[0], size[1]), len(widths)), (channels, *widths)
    coarse = widths[-1] * math.prod(sizes[-1])

    down: list[nn.Module] = []
    up: list[nn.Module] = [draw(nn.Linear(latent, coarse)), Grid(widths[-1], sizes[-1])]
    up += [Block(widths[-1], activation, gain) for _ in range(blocks)]
    for i in range(len(widths)):
        down += [Function(activation)] if i else []
        down += [draw(Halve(wide[i], wide[i + 1], kernel, sizes[i]), gain if i else 1.0)]
    down += [Block(widths[-1], activation, gain) for _ in range(blocks)]
    for i in reversed(range(len(widths))):
        up += [Function(activation), draw(Double(wide[i + 1], wide[i] if i else outputs * channels, kernel, sizes[i]), gain)]
    down += [Function(activation), Rows(), draw(nn.Linear(coarse, 2 * latent), gain)]
    return Codes(*down), nn.Sequential(*up, nn.Unflatten(1, (outputs, channels)))
