"""Images in files as users bring them."""

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Return levels of noise, uint8 of this shape."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def write_pictures(folder: Path, images: np.ndarray, suffix: str = "png", start: int = 0) -> None:
    """Write images (N, H, W) or (N, H, W, 3) into a folder, each under its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images, start):
        Image.fromarray(image).save(folder / f"{number:04}.{suffix}")


def write_idx(path: Path, array: np.ndarray, *, kind: int = 8) -> Path:
    """Write an array as an IDX file, packed if its name ends in .gz, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path
