"""Images in IDX files, the format of MNIST (http://yann.lecun.com/exdb/mnist/), raw or packed by gzip.

Shapes: N images, C channels, H rows, W columns.
"""

import gzip
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import references
from harness.data.own import digests_of, tenths_of
from harness.data.parts import Say
from harness.errors import UserError

UNSIGNED = 8  # the type of bytes 0..255 in an IDX header
VALIDATION = 8  # the tenth of a training file's images that validates


def from_idx(folder: Path, say: Say) -> Mapping[str, Any]:
    """Return the images of a folder's IDX files, and the labels if there are any, as `own.from_given` takes them.

    A file of images and one of labels are split by content. A pair whose name has `train` and one whose name has `t10k` or `test`
    are training and test images: a tenth of the former by content validates, and those that the test file has too are left out.

    Raises:
        UserError: A file is damaged, holds another type, or there is none or more than one way to pair them.
    """
    arrays = {name: read_idx(path) for name, path in references.files_of("idx", folder).items()}
    images = {name: array for name, array in arrays.items() if array.ndim >= 3}
    labels = {name: array for name, array in arrays.items() if array.ndim == 1}
    listed = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    ends = {name: "test" if re.search("t10k|test", name) else "train" if "train" in name else "" for name in images}
    if not images or len(images) > 2 or (len(images) == 2 and set(ends.values()) != {"train", "test"}):
        raise UserError(
            f"{folder}: one file of images is needed, or two, with train and with t10k or test in their names; got {listed}"
        )
    own = {name: _labels_of(name, images, labels) for name in images}
    if len(labels) not in (0, len(images)) or any((own[name] is None) != (not labels) for name in images):
        raise UserError(f"{folder}: each file of images has one of labels, or none has; got {listed}")
    for name, found in own.items():
        if found is not None and len(labels[found]) != len(images[name]):
            raise UserError(f"{folder}: {name} has {len(images[name])} images, {found} has {len(labels[found])} labels")
    order = sorted(images, key=lambda name: ends[name] == "test")
    shapes = {images[name].shape[1:] for name in order}
    if len(shapes) > 1:
        raise UserError(f"{folder}: images must have one shape, got {listed}")
    given: dict[str, Any] = {"images": np.concatenate([images[name] for name in order])}
    if labels:
        given["labels"] = np.concatenate([labels[own[name] or ""] for name in order])
    return given | _splits(folder, len(images[order[0]]), given["images"], say) if len(order) == 2 else given


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Return the array of an IDX file.

    Raises:
        UserError: It is damaged, or its values are no unsigned bytes.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as fault:
        raise UserError(f"{path}: cannot be read: {fault}") from None
    if len(content) < 4 or content[:2] != b"\0\0":
        raise UserError(f"{path}: is no IDX file: it begins with {content[:4].hex(' ') or 'nothing'}, an IDX file with 00 00 08")
    kind, dimensions = content[2], content[3]
    if kind != UNSIGNED:
        raise UserError(f"{path}: values must be unsigned bytes (type 08), got type {kind:02x}")
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise UserError(f"{path}: is cut off within its header, after {len(content)} bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    wanted = header + int(np.prod(shape, dtype=object))
    if len(content) != wanted:
        raise UserError(f"{path}: its header says {shape}, which takes {wanted:,} bytes; it has {len(content):,}")
    try:
        return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    except ValueError as fault:  # a header of damaged lengths whose product is right, or of more than NumPy has
        raise UserError(f"{path}: its header says {dimensions} lengths, which make no array: {fault}") from None


def _labels_of(name: str, images: Mapping[str, Any], labels: Mapping[str, Any]) -> str | None:
    """Return the file of labels that belongs to a file of images: the only one, or the one of the same name otherwise."""

    def key(file: str) -> str:
        return re.sub(r"images?|labels?|idx\d|\.gz$", "", file)

    found = list(labels) if len(images) == 1 else [file for file in labels if key(file) == key(name)]
    return found[0] if len(found) == 1 else None


def _splits(folder: Path, count: int, images: npt.NDArray[np.uint8], say: Say) -> dict[str, npt.NDArray[np.int64]]:
    """Return the indices of each split, of images whose first `count` are the training file's and the others the test file's."""
    digests = digests_of(images)
    tested = set(digests[count:])
    kept = np.array([digest not in tested for digest in digests[:count]], dtype=bool)
    if not kept.all():
        left_out = np.flatnonzero(~kept)
        say(
            f"idx:{folder.name}: {len(left_out):,} training images are left out, for the test file has them too, "
            f"the first: {left_out[0]}"
        )
    validating = tenths_of(digests[:count]) == VALIDATION
    return {
        "train": np.flatnonzero(kept & ~validating),
        "validation": np.flatnonzero(kept & validating),
        "test": np.arange(count, len(images)),
    }
