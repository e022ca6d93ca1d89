"""Images of our own: grey squares and discs, read from an .npz beside this file, which is drawn if it is missing."""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("shapes.npz")


def draw(count: int = 1_000, side: int = 16) -> None:
    """Draw discs (label 0) and squares (label 1) of random place, size and brightness, and save them."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    labels = random.integers(2, size=count)
    images = np.zeros((count, side, side), np.uint8)
    for image, square in zip(images, labels, strict=True):
        (row, column), reach = random.uniform(4, side - 5, 2), random.uniform(2, 4)
        away = np.maximum(abs(y - row), abs(x - column)) if square else np.hypot(y - row, x - column)
        image[away < reach] = random.integers(100, 256)
    np.savez(FILE, images=images, labels=labels)


def shapes() -> dict[str, np.ndarray]:
    """Return uint8 images (N, H, W) and labels (N,); without splits every image goes where its own digest sends it."""
    if not FILE.exists():
        draw()
    with np.load(FILE) as file:
        return {"images": file["images"], "labels": file["labels"]}
