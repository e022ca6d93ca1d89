"""Convolutions of a traced step by the native library (native/convolutions.h), forwards and backwards.

The kernel reads images with the channels last and multiplies them where they lie, without a matrix of patches and without the zeros
beyond the border, which are 18 % of the multiplications of a 3 x 3 kernel on 7 x 7 pixels. On an AMD core with AVX-512 it reaches
110 to 140 GFLOP/s where channels are many, those zeros counted. A step of the network `conv` takes 0.48 of its time in plain
PyTorch, in which convolutions are the most of it, one of `resnet` 0.53 (docs/log.md).

Shapes: B images, C channels, H rows, W columns, O outputs of a convolution. A transposed convolution is the gradient of an ordinary
one with respect to its images, and the other way round.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

Ints = Sequence[int]


def table() -> Mapping[Any, Callable[..., Any]]:
    """Return the replacements of torch's convolutions, by operator; they return NotImplemented to leave one to torch."""
    aten = torch.ops.aten
    return {aten.convolution.default: _convolution, aten.convolution_backward.default: _backward}


class Options(NamedTuple):
    """What torch says of a convolution beside its tensors."""

    stride: Ints
    padding: Ints
    dilation: Ints
    transposed: bool
    output_padding: Ints
    groups: int

    def ours(self, x: Tensor, weight: Tensor) -> bool:
        """Return whether the kernel knows it: it has two dimensions, float32, neighbouring pixels and all channels."""
        return x.ndim == 4 and x.dtype == weight.dtype == torch.float32 and set(self.dilation) == {1} and self.groups == 1


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
    """Return the convolution of x (B, C, H, W) with the channels last in memory; the compiler fuses the bias with what follows."""
    how = Options(*options)
    if not how.ours(x, weight):
        return cast(Tensor, NotImplemented)
    geometry = (*weight.shape[2:], *how.stride, *how.padding)
    sizes = zip(x.shape[2:], weight.shape[2:], how.stride, how.padding, how.output_padding, strict=True)
    if how.transposed:
        out = _images(x, weight, [(n - 1) * s - 2 * p + k + more for n, k, s, p, more in sizes], geometry)
    else:
        out = _outputs(x, weight, [(n + 2 * p - k) // s + 1 for n, k, s, p, _ in sizes], geometry)
    return out if bias is None else out + bias.view(-1, 1, 1)


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, _: Ints | None, *options: Any) -> tuple[Tensor | None, ...]:
    """Return the gradients of a convolution's images, weight and bias, None for those that the last option does not want."""
    *rest, wanted = options
    how = Options(*rest)
    if not how.ours(x, weight):
        return cast(tuple[Tensor, ...], NotImplemented)
    geometry = (*weight.shape[2:], *how.stride, *how.padding)
    images, outputs, of_x = (gradient, x, _outputs) if how.transposed else (x, gradient, _images)
    return (
        of_x(gradient, weight, x.shape[2:], geometry) if wanted[0] else None,
        torch.ops.harness.convolve_weight(_channels_last(images), _channels_last(outputs), *geometry) if wanted[1] else None,
        gradient.sum((0, 2, 3)) if wanted[2] else None,
    )


def _channels_last(x: Tensor) -> Tensor:
    """Return x (B, C, H, W) as (B, H, W, C), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


def _outputs(x: Tensor, weight: Tensor, size: Ints, geometry: Ints) -> Tensor:
    """Return the outputs (B, O, *size) of images x (B, C, H, W) for a weight (O, C, rows, columns)."""
    out: Tensor = torch.ops.harness.convolve(_channels_last(x), weight.contiguous(), *size, *geometry)
    return out.permute(0, 3, 1, 2)


def _images(outputs: Tensor, weight: Tensor, size: Ints, geometry: Ints) -> Tensor:
    """Return the images (B, C, *size) whose pixels add up what each output (B, O, ...) gives them by a weight (O, C, ...)."""
    out: Tensor = torch.ops.harness.convolve_image(_channels_last(outputs), weight.contiguous(), *size, *geometry)
    return out.permute(0, 3, 1, 2)
