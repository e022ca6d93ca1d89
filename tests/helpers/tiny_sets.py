"""Published data sets as small as a test can have them: files in the published formats, and their digests."""

import gzip
import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path

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
