"""Images and latents that a user gives, checked. Shapes: N images, C channels, H by W pixels, P = C H W, Z latents."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data import Split
from harness.errors import UserError
from harness.models.likelihoods import MAX_LEVEL


def split_of(images: Any, image_shape: tuple[int, int, int]) -> Split:
    """Return images as a split without labels.

    Args:
        images: A NumPy array or a tensor, (N, C, H, W) or (N, P), of one channel also (N, H, W): levels as uint8, or floats
            in [0, 1], which are rounded to the 256 levels.
        image_shape: Channels, height and width of an image.

    Raises:
        UserError: Another type, shape or number type, or a value out of range; the message shows the first one.
    """
    values = _tensor(images, "images")
    n = len(values) if values.dim() else 0
    channels, *area = image_shape
    forms = (*([tuple(area)] if channels == 1 else []), image_shape, (math.prod(image_shape),))
    shapes = [(n, *form) for form in forms]
    if not n or tuple(values.shape) not in shapes:
        single = "\none image is images[None]" if tuple(values.shape) in forms else ""
        wanted = " or ".join(map(_shape, shapes))
        raise UserError(f"images must be {wanted} with N of at least 1, got {_seen(values)}{single}")
    flat = values.reshape(n, -1)
    if flat.dtype != torch.uint8:
        flat = _levels(flat)
    return Split("images", flat, None)


def latents_of(z: Any, latent: int) -> Tensor:
    """Return latents as a float32 tensor, (N, Z).

    Raises:
        UserError: Not an array or tensor of floats, or of another shape, or with a value that is not finite.
    """
    values = _tensor(z, "z")
    if values.dim() != 2 or values.shape[1] != latent or not len(values):
        raise UserError(f"z must be (N, {latent}) with N of at least 1, got {_seen(values)}")
    if not values.is_floating_point():
        raise UserError(f"z must be floats, got {_seen(values)}\nz.astype('float32'), or z.float() of a tensor")
    _refuse(~values.isfinite(), values, "z must be finite")
    return values.float()


def _tensor(values: Any, what: str) -> Tensor:
    """Return an array or tensor as a detached tensor on the CPU."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" and values.dtype.isnative and values.dtype.itemsize <= 8:
        return torch.from_numpy(np.array(values, order="C"))
    if isinstance(values, Tensor):
        return values.detach().cpu()
    seen = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
    raise UserError(f"{what} must be a NumPy array or a tensor of numbers, got {seen}\nnumpy.asarray(...) makes one")


def _levels(values: Tensor) -> Tensor:
    """Return floats in [0, 1], (N, P), as grey levels, uint8."""
    if not values.is_floating_point():
        raise UserError(
            f"images must be uint8 grey levels or floats in [0, 1], got {_seen(values)}\n"
            "images.astype('uint8'), or images.to(torch.uint8) of a tensor, if they are levels 0..255"
        )
    _refuse(
        ~((values >= 0) & (values <= 1)), values, "images of floats must lie in [0, 1]", "divide grey levels by 255, or give uint8"
    )
    return (values * MAX_LEVEL).round().to(torch.uint8)


def _refuse(wrong: Tensor, values: Tensor, rule: str, fix: str = "") -> None:
    """Raise an error that shows the first value that is `wrong`, if any is; rows are images or latents."""
    if wrong.any():
        row, column = (int(i) for i in wrong.nonzero()[0])
        raise UserError(
            f"{rule}, got {float(values[row, column]):g} at [{row}, {column}] of {_seen(values)}" + (f"\n{fix}" if fix else "")
        )


def _shape(shape: tuple[int, ...]) -> str:
    """Return a shape in words, with N for the number of images."""
    return f"({', '.join(('N', *map(str, shape[1:])))})"


def _seen(values: Tensor) -> str:
    """Return number type, shape and range of a tensor in words."""
    finite = values[values.isfinite()] if values.is_floating_point() else values
    extent = f" from {finite.min().item():g} to {finite.max().item():g}" if finite.numel() else ""
    return f"{str(values.dtype).removeprefix('torch.')} {tuple(values.shape)}{extent}"
