"""Data sets of the user's own: what a function returns, checked and split. Shapes: N images, H rows, W columns."""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from harness.data.disjoint import in_words, shared
from harness.data.splits import Data, Split
from harness.errors import UserError

PARTS = ("train", "validation", "test")
TENTHS = (8, 1, 1)  # of the images, by part, where the function names no splits
FEWEST = 10  # images of a part
FORM = "images, or (images, labels), or a mapping of images and, if there are any, labels, train, validation, test"


def from_function(name: str, function: Callable[[], Any]) -> Data:
    """Return the data set that a user's function gives.

    Args:
        name: Of the function, for messages.
        function: Takes nothing. It returns images, or (images, labels), or a mapping with `images` and, if there are any, `labels`
            and the indices `train`, `validation` and `test` of each split. Images are uint8, (N, H, W) or (N, 1, H, W); labels are
            whole numbers, (N,). Without splits an image goes where the digest of its bytes sends it, 80 of 100 to train and 10 to
            each of the others, so equal images go to one split.

    Raises:
        UserError: It raises an error, or returns something else; the message says what came.
    """
    try:
        given = function()
    except Exception as fault:  # it is the user's code, which may raise anything
        raise UserError(f"{name}: {type(fault).__name__}: {fault}") from fault
    if given is None:
        raise UserError(f"{name} must return {FORM}; got None: is a return missing?")
    parts: Mapping[str, Any] = given if isinstance(given, Mapping) else {"images": given}
    if isinstance(given, tuple) and len(given) == 2:
        parts = dict(zip(("images", "labels"), given, strict=True))
    strange = parts.keys() - {"images", "labels", *PARTS}
    if "images" not in parts or strange:
        came = f"a mapping of {', '.join(map(str, parts))}" if isinstance(given, Mapping) else type(given).__name__
        raise UserError(f"{name} must return {FORM}; got {came}")
    images = _images(name, parts["images"])
    labels = None if parts.get("labels") is None else _labels(name, parts["labels"], len(images))
    chosen = {part: _indices(name, part, parts[part], len(images)) for part in PARTS if part in parts}
    if chosen and len(chosen) < len(PARTS):
        raise UserError(f"{name} names the splits {', '.join(chosen)}: give all of {', '.join(PARTS)}, or none")
    chosen = chosen or _by_content(images)
    for part, indices in chosen.items():
        if len(indices) < FEWEST:
            raise UserError(f"{name}: the {part} split has {len(indices)} images, at least {FEWEST} are needed")
    splits = {
        part: Split(part, torch.from_numpy(images[own]).flatten(1), None if labels is None else torch.from_numpy(labels[own]))
        for part, own in chosen.items()
    }
    _check_apart(name, splits)
    content = [images, *([] if labels is None else [labels]), *chosen.values()]
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in content)).hexdigest()
    plain = re.sub(r"\W+", "_", name.rpartition(":")[2])
    return Data(name=plain, image_shape=(1, *images.shape[1:]), digest=digest, disjoint=True, **splits)


def _images(name: str, given: Any) -> npt.NDArray[np.uint8]:
    """Return images as an array, uint8 (N, H, W)."""
    images = np.asarray(given)
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.dtype != np.uint8 or images.ndim != 3:
        shown = f"{images.dtype} {images.shape}"
        if images.size and np.issubdtype(images.dtype, np.number):
            shown += f", values {images.min():g} to {images.max():g}"
        hint = "\nfloats in [0, 1]: (255 * images).round().astype('uint8')" if np.issubdtype(images.dtype, np.floating) else ""
        raise UserError(f"{name} must give grey images as uint8 (N, H, W) with levels 0..255, got {shown}{hint}")
    if images.shape[1] != images.shape[2]:
        raise UserError(f"{name}: images must be square, got {images.shape[1]} x {images.shape[2]} pixels")
    return images


def _labels(name: str, given: Any, images: int) -> npt.NDArray[np.int64]:
    """Return labels as an array, int64 (N,)."""
    labels = np.asarray(given)
    if labels.shape != (images,) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{name}: labels must be whole numbers, one per image, ({images},); got {labels.dtype} {labels.shape}")
    return labels.astype(np.int64)


def _indices(name: str, part: str, given: Any, images: int) -> npt.NDArray[np.int64]:
    """Return the indices of a split's images."""
    indices = np.asarray(given)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise UserError(f"{name}: {part} must be indices of images, (n,); got {indices.dtype} {indices.shape}")
    if indices.size and not (indices.min() >= 0 and indices.max() < images):
        raise UserError(f"{name}: {part} has indices {indices.min()} to {indices.max()}, there are {images} images")
    return indices.astype(np.int64)


def _by_content(images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.int64]]:
    """Return the indices of each split's images, by the digest of each image."""
    tenth = np.array([int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8]) % 10 for image in images])
    ends = np.cumsum(TENTHS)
    return {
        part: np.flatnonzero((tenth >= end - width) & (tenth < end)) for part, width, end in zip(PARTS, TENTHS, ends, strict=True)
    }


def _check_apart(name: str, splits: Mapping[str, Split]) -> None:
    """Raise an error if an image is in two splits.

    Raises:
        UserError: it is; the message counts them, names the first and says what would do.
    """
    found = shared([splits[part] for part in reversed(PARTS)])
    if found:
        raise UserError(
            f"{name}: splits must not overlap, but\n{in_words(found)}\n"
            f"give each image to one split, or leave {', '.join(PARTS)} out: equal images then go to one split"
        )
