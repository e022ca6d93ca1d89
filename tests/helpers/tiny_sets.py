"""Published data sets as small as a test can have them: files in the published formats, and their digests."""

import gzip
import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from harness.data.published import FILES


def idx_files(train: Tensor, test: Tensor) -> dict[str, bytes]:
    """Return the four files of these images, uint8 (N, 784), whose labels count them."""
    files = {}
    for names, images in ((FILES[:2], train), (FILES[2:], test)):
        files[names[0]] = struct.pack(">iiii", 2051, len(images), 28, 28) + images.numpy().tobytes()
        files[names[1]] = struct.pack(">ii", 2049, len(images)) + bytes(range(len(images)))
    return files


def packed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def digests(files: Mapping[str, bytes], algorithm: str = "sha256") -> dict[str, str]:
    """Return the digests of some files as `harness.data.published.DIGESTS` has them."""
    return {name: f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}" for name, content in files.items()}


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def python_2(value: Any) -> bytes:
    """Return a pickle as Python 2 wrote it, protocol 2: of a tuple, a list, a dictionary, numbers, ASCII text or an array."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    match value:
        case tuple():
            return b"(" + b"".join(map(_opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_opcodes(part) for item in value.items() for part in item) + b"u"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"J" + struct.pack("<i", value)
        case None:
            return b"N"
        case str():
            return _opcodes(value.encode("ascii"))
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case np.ndarray():
            kind = value.dtype.str[1:]
            order = "|" if kind.endswith("1") else "<"
            empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _opcodes((0,)) + _opcodes("b") + b"tR"
            dtype = b"cnumpy\ndtype\n" + _opcodes((kind, 0, 1)) + b"R" + _opcodes((3, order, None, None, None, -1, -1, 0)) + b"b"
            state = b"(" + _opcodes(1) + _opcodes(value.shape) + dtype + _opcodes(False) + _opcodes(value.tobytes()) + b"t"
            return empty + state + b"b"
    raise TypeError(type(value))
