"""Images as they are given, as levels 0..255. Shapes: N images, C channels, H rows, W columns."""

from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data.parts import Say
from harness.errors import UserError

CHANNELS = (1, 3)  # grey; red, green and blue
TOP = 255  # the highest level
AT_A_TIME = 4096  # images that are looked at, so that no copy of all in another type is made


def as_array(what: str, given: Any) -> npt.NDArray[Any]:
    """Return what NumPy makes of something; `what` it is, is for the message.

    Raises:
        UserError: It is no array: of arrays of several shapes, or a tensor that NumPy cannot read.
    """
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as fault:  # RuntimeError is torch's, of a tensor with gradients
        why = str(fault).partition("\n")[0]
        raise UserError(f"{what} must be one array of numbers, got {type(given).__name__}: {why}") from None


def as_levels(name: str, given: Any, say: Say) -> npt.NDArray[np.uint8]:
    """Return images as uint8 (N, C, H, W).

    Args:
        name: Of what gave them, for messages.
        given: uint8 levels, or floats in [0, 1], which are rounded to the nearest of 256 levels: (N, H, W), (N, C, H, W), or
            (N, H, W, C) where the second of four lengths is no number of channels. C is 1 or 3.
        say: Takes a line about channels that were last and floats that were rounded.

    Raises:
        UserError: They are anything else; the message has type, shape, range and the first value that is out of range.
    """
    images = as_array(f"{name}: images", given)
    if images.dtype == object:
        raise UserError(f"{name}: images must be one array of numbers, got {images.shape} objects: are they of several shapes?")
    what = f"{images.dtype} {images.shape}"
    if not np.issubdtype(images.dtype, np.integer) and not np.issubdtype(images.dtype, np.floating):
        hint = "\nof masks: 255 * images.astype('uint8')" if images.dtype == bool else ""
        raise UserError(f"{name}: images must be uint8 levels or floats in [0, 1], got {what}{hint}")
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise UserError(f"{name}: images must be (N, H, W), (N, C, H, W) or (N, H, W, C) with at least one of them, got {what}")
    levels = _rounded(name, images, what, say)
    if levels.ndim == 3:
        return levels[:, None]
    if levels.shape[1] in CHANNELS:
        if levels.shape[3] in CHANNELS:
            say(f"{name}: images {levels.shape} are taken as (N, C, H, W): channels first")
        return levels
    if levels.shape[3] in CHANNELS:
        say(f"{name}: images {levels.shape} are taken as (N, H, W, C): channels last")
        return np.ascontiguousarray(levels.transpose(0, 3, 1, 2))
    alpha = "\nleave out the alpha channel: images[..., :3]" if levels.shape[3] == 4 else ""
    raise UserError(f"{name}: images must have 1 channel or 3, got {what}{alpha}")


def _rounded(name: str, images: npt.NDArray[Any], what: str, say: Say) -> npt.NDArray[np.uint8]:
    """Return images of any shape as uint8; the description `what` is for messages."""
    if images.dtype == np.uint8:
        if 0 < (highest := images.max()) <= 1:
            raise UserError(
                f"{name}: images must have levels 0..{TOP}, got {what} whose highest is {highest}\nof masks: 255 * images"
            )
        levels: npt.NDArray[np.uint8] = images
        return levels
    floats = np.issubdtype(images.dtype, np.floating)
    low, high = float(images.min()), float(images.max())
    if not floats or not (low >= 0 and high <= 1):  # false of NaN too
        raise UserError(
            f"{name}: images must be uint8 levels 0..{TOP} or floats in [0, 1], got {what}, "
            f"values {low:g} to {high:g}{_first_beyond(images, 1 if floats else TOP)}{_mended(images, low, high)}"
        )
    if 0 < high * TOP < 1.5:
        raise UserError(f"{name}: images must be floats in [0, 1], got {what}, values {low:g} to {high:g}: divided by {TOP} twice?")
    levels = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), AT_A_TIME):
        levels[start : start + AT_A_TIME] = np.rint(images[start : start + AT_A_TIME].astype(np.float64) * TOP)
    say(f"{name}: images are {images.dtype} in [{low:g}, {high:g}]: rounded to the nearest of 256 levels")
    return levels


def _first_beyond(images: npt.NDArray[Any], top: int) -> str:
    """Return in words where the first value is that is not within 0..top, and the value; empty if there is none."""
    for start in range(0, len(images), AT_A_TIME):
        part = images[start : start + AT_A_TIME]
        beyond = np.flatnonzero(~((part >= 0) & (part <= top)))
        if len(beyond):
            index = [int(i) for i in np.unravel_index(beyond[0], part.shape)]
            value = part[tuple(index)]
            index[0] += start
            return f", the first beyond 0..{top}: images{index} = {value:g}"
    return ""


def _mended(images: npt.NDArray[Any], low: float, high: float) -> str:
    """Return a line on what would make levels of images with values in this range; empty where only their owner can tell."""
    if np.issubdtype(images.dtype, np.integer):
        if 1 < high <= TOP and low >= 0:
            return "\nthey are levels: images.astype('uint8')"
        return "\n16 bits: (images >> 8).astype('uint8')" if low >= 0 and TOP < high < 2**16 else ""
    if low >= 0 and 1 < high <= TOP:
        return "\nif they are levels: images.round().astype('uint8')"
    return "\nif they were standardised: undo it; if -1 is black: (images + 1) / 2" if low < 0 else ""
