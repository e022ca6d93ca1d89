"""Data sets of the user's own: what a function or files give, checked and split.

Shapes: N images, C channels, H rows, W columns.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import references
from harness.data.disjoint import in_words, shared
from harness.data.levels import as_array, as_levels
from harness.data.parts import Part, Parts, Say
from harness.errors import HarnessError, UserError, raised

PARTS = ("train", "validation", "test")
TENTHS = (8, 1, 1)  # of the images, by part, where no splits are given
FEWEST = 10  # images of a part
FORM = "images, or (images, labels), or a mapping of images and, if there are any, labels, train, validation, test"


def from_function(name: str, function: Callable[..., Any], arguments: Mapping[str, Any], say: Say) -> Parts:
    """Return the data set that a user's function gives.

    Args:
        name: Of the function, for messages.
        function: Takes the arguments as keywords. It returns images, or (images, labels), or a mapping, as `from_given` takes it.
        arguments: The trial's `dataset_args`.
        say: Takes what is said of the images.

    Raises:
        UserError: It takes no such arguments, raises an error, or returns something else; the message says what came.
    """
    takes = inspect.signature(function)
    try:
        takes.bind(**arguments)
    except TypeError as fault:
        known = ", ".join(takes.parameters) or "none"
        raise UserError(f"{name} does not take dataset_args={dict(arguments)}: {fault}\nit takes: {known}") from None
    try:
        given = function(**arguments)
    except HarnessError:
        raise
    except Exception as fault:  # it is the user's code, which may raise anything
        raise UserError(f"{name}: {raised(fault)}") from fault
    if given is None:
        raise UserError(f"{name} must return {FORM}; got None: is a return missing?")
    if isinstance(given, tuple) and len(given) == 2:
        given = dict(zip(("images", "labels"), given, strict=True))
    return from_given(name, given if isinstance(given, Mapping) else {"images": given}, say)


def from_given(name: str, given: Mapping[str, Any], say: Say) -> Parts:
    """Return the data set of a mapping.

    Args:
        name: Of what gave it, for messages; its last part becomes the data set's.
        given: `images` as `as_levels` takes them and, if there are any, `labels`, whole numbers of at least 0, (N,), and the
            indices `train`, `validation` and `test` of each split, (n,). Without splits an image goes where the digest of its bytes
            sends it, 80 of 100 to train and 10 to each of the others, so equal images go to one split.
        say: Takes a line about equal and constant images, images in no split, and images that are taken in another form.

    Raises:
        UserError: Something else is in it; the message says what came.
    """
    strange = given.keys() - {"images", "labels", *PARTS}
    if "images" not in given or strange:
        raise UserError(f"{name} must give {FORM}; got a mapping of {', '.join(map(str, given)) or 'nothing'}")
    images = as_levels(name, given["images"], say)
    labels = None if given.get("labels") is None else _labels(name, given["labels"], len(images))
    chosen = {part: _indices(name, part, given[part], len(images)) for part in PARTS if part in given}
    if chosen and len(chosen) < len(PARTS):
        raise UserError(f"{name} names the splits {', '.join(chosen)}: give all of {', '.join(PARTS)}, or none")
    digests = digests_of(images)
    _check_varied(name, images, digests, say)
    _say_equal(name, digests, say)
    unused = len(images) - len(set(np.concatenate(list(chosen.values())).tolist())) if chosen else 0
    if unused:
        say(f"{name}: {unused:,} of {len(images):,} images are in no split")
    hint = "" if chosen else f"; of {len(images)} images a tenth is in the smaller splits: give more, or splits of your own"
    chosen = chosen or by_content(digests)
    for part, indices in chosen.items():
        if len(indices) < FEWEST:
            raise UserError(f"{name}: the {part} split has {len(indices)} images, at least {FEWEST} are needed{hint}")
    splits = {
        part: Part(part, images[own].reshape(len(own), -1), None if labels is None else labels[own]) for part, own in chosen.items()
    }
    _check_apart(name, splits)
    _, channels, height, width = images.shape
    content = [images, *([] if labels is None else [labels]), *chosen.values()]
    # Square grey images came first, so that digests on record are without their shape.
    shape = [] if channels == 1 and height == width else [np.array((channels, height, width))]
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in [*shape, *content])).hexdigest()
    return Parts(name=plain_name(name), image_shape=(channels, height, width), digest=digest, disjoint=True, **splits)


def plain_name(name: str) -> str:
    """Return what a data set is called in the names of files.

    >>> plain_name("npz:faces.npz@1f2e3d4c5b6a"), plain_name("data.py:faces"), plain_name("mnist")
    ('faces_npz', 'faces', 'mnist')
    """
    return re.sub(r"\W+", "_", references.label(name).rpartition(":")[2])


def _labels(name: str, given: Any, images: int) -> npt.NDArray[np.int64]:
    """Return labels as an array, int64 (N,)."""
    labels = as_array(f"{name}: labels", given)
    if labels.shape != (images,) or not np.issubdtype(labels.dtype, np.integer):
        named = "\nof names: np.unique(labels, return_inverse=True)[1]" if labels.dtype.kind in "US" else ""
        raise UserError(
            f"{name}: labels must be whole numbers, one per image, ({images},); got {labels.dtype} {labels.shape}{named}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels > np.iinfo(np.int64).max))
    if len(wrong):
        raise UserError(f"{name}: labels must be from 0 to 2**63 - 1, got labels[{wrong[0]}] = {labels[wrong[0]]}")
    return labels.astype(np.int64)


def _indices(name: str, part: str, given: Any, images: int) -> npt.NDArray[np.int64]:
    """Return the indices of a split's images."""
    indices = as_array(f"{name}: {part}", given)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        mask = f"\nof a mask: np.flatnonzero({part})" if indices.dtype == bool else ""
        raise UserError(f"{name}: {part} must be indices of images, (n,); got {indices.dtype} {indices.shape}{mask}")
    if indices.size and not (indices.min() >= 0 and indices.max() < images):
        raise UserError(f"{name}: {part} has indices {indices.min()} to {indices.max()}, there are {images} images")
    rows, counts = np.unique(indices, return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{name}: {part} must have each index once, got {rows[counts > 1][0]} {counts[counts > 1][0]} times")
    return indices.astype(np.int64)


def digests_of(images: npt.NDArray[np.uint8]) -> list[bytes]:
    """Return the sha256 of each image's bytes."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def tenths_of(digests: list[bytes]) -> npt.NDArray[np.int64]:
    """Return which tenth of all images, 0..9, each belongs to by its digest, (N,)."""
    return np.array([int.from_bytes(digest[:8]) % 10 for digest in digests], dtype=np.int64)


def by_content(digests: list[bytes]) -> dict[str, npt.NDArray[np.int64]]:
    """Return the indices of each split's images, by the digest of each image."""
    tenths, ends = tenths_of(digests), np.cumsum(TENTHS)
    return {
        part: np.flatnonzero((tenths >= end - width) & (tenths < end)) for part, width, end in zip(PARTS, TENTHS, ends, strict=True)
    }


def _check_varied(name: str, images: npt.NDArray[np.uint8], digests: list[bytes], say: Say) -> None:
    """Say how many images have one level throughout, and the first of them; images of one pixel cannot but.

    Raises:
        UserError: all images are equal, so that there is nothing to learn.
    """
    flat = images.reshape(len(images), -1)
    constant = np.flatnonzero(flat.max(1) == flat.min(1)) if flat.shape[1] > 1 else np.empty(0, np.int64)
    if len(images) > 1 and len(set(digests)) == 1:
        of = f", of one level throughout, {flat.min()}" if flat.min() == flat.max() else ""
        raise UserError(f"{name}: all {len(images):,} images are equal{of}: there is nothing to learn")
    if len(constant):
        say(f"{name}: {len(constant):,} of {len(images):,} images have one level throughout, the first: images[{constant[0]}]")


def _say_equal(name: str, digests: list[bytes], say: Say) -> None:
    """Say how many images equal an earlier one, and the first that does."""
    first: dict[bytes, int] = {}
    equal = [(row, twin) for row, digest in enumerate(digests) if (twin := first.setdefault(digest, row)) != row]
    if equal:
        row, twin = equal[0]
        say(
            f"{name}: {len(equal):,} of {len(digests):,} images equal an earlier one, the first: images[{row}] = images[{twin}]; "
            "equal images are in one split"
        )


def _check_apart(name: str, splits: Mapping[str, Part]) -> None:
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
