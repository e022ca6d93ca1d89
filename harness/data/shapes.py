"""Drawn figures whose factors are known: offline, grey or in colour, for tests and for studies of what a code holds.

The model is dSprites (Matthey et al., 2017, https://github.com/google-deepmind/dsprites-dataset), which has 737,280 images. All
arithmetic is of whole numbers, so the images are the same on every machine. Shapes: N images of C channels.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from harness import catalog
from harness.data.parts import Part, Parts, Say

if TYPE_CHECKING:
    from torch import Tensor

Whole = npt.NDArray[np.int64]
FIGURES = ("square", "ellipse", "heart")
RADII = (6, 8, 10, 12)  # half the side of the square: pixels at size 64, half as many at 32
# The cosine of 0, 11.25, .., 90 degrees in 16384ths; backwards it is the sine.
COSINES = (16384, 16069, 15137, 13623, 11585, 9102, 6270, 3196, 0)
FIRST, STEP, PLACES = 18, 4, 8  # of the centre, from the left and from the top: pixels at size 64, likewise
FIGURE_COLOURS = ((230, 60, 50), (240, 160, 40), (235, 220, 70), (70, 190, 90), (60, 140, 235), (190, 90, 220))
GROUND_COLOURS = ((20, 20, 30), (60, 40, 30), (30, 60, 50), (90, 90, 100))
FACTORS = {"shape": len(FIGURES), "scale": len(RADII), "angle": len(COSINES) - 1, "x": PLACES, "y": PLACES}
COLOUR_FACTORS = {"figure": len(FIGURE_COLOURS), "ground": len(GROUND_COLOURS)}
PARTS = {"train": catalog.DATASETS["shapes"].train, "validation": catalog.DATASETS["shapes"].validation, "test": 600}
FINE = 8  # a pixel's level is the share of FINE x FINE points in it that lie in the figure


def shapes(say: Say, channels: int = 1, size: int = 64) -> Parts:
    """Return 6,144 images of one figure each, an image for each combination of shape, scale, angle, x and y.

    The shapes are a square, an ellipse and a heart, which are the labels 0, 1 and 2. There are 4 scales, 8 angles within the right
    angle after which a square looks as before, and 8 places each way; edges are anti-aliased. No two images are equal. They are
    shuffled by a fixed permutation: 4,944 train, 600 validate, 600 test. `say` is not used.

    Args:
        say: Would take messages.
        channels: 1, white on black; or 3, where the figure has one of 6 colours and the ground one of 4, each in equal numbers.
        size: Height and width, 64 or 32 pixels.
    """
    return _drawn(channels, size)


def factors(part: str, channels: int = 1) -> dict[str, "Tensor"]:
    """Return what the images of a split show, in their order: the number of each factor's value, int64 (N,), by the factor's name.

    The factors are shape, scale, angle (in steps of 11.25 degrees against the clock), x (to the right) and y (downwards); with 3
    channels also figure and ground, the colours. They are the same for both sizes.

    Args:
        part: train, validation or test.
        channels: Of the images, 1 or 3.
    """
    import torch

    return {name: torch.from_numpy(values)[_rows()[part]] for name, values in _factors(channels).items()}


def _rows() -> dict[str, slice]:
    """Return which of all images are in each split."""
    ends = np.cumsum(list(PARTS.values())).tolist()
    return {part: slice(end - size, end) for (part, size), end in zip(PARTS.items(), ends, strict=True)}


def _factors(channels: int) -> dict[str, Whole]:
    """Return the number of each factor's value for all images, (N,)."""
    grid = np.indices(tuple(FACTORS.values())).reshape(len(FACTORS), -1).astype(np.int64)
    values = dict(zip(FACTORS, grid[:, np.random.RandomState(0).permutation(grid.shape[1])], strict=True))
    for seed, (name, count) in enumerate(COLOUR_FACTORS.items(), start=1) if channels == 3 else ():
        values[name] = np.random.RandomState(seed).permutation(grid.shape[1]).astype(np.int64) % count
    return values


@cache
def _drawn(channels: int, size: int) -> Parts:
    """Draw the images."""
    values = _factors(channels)
    levels = _images(values, channels, size)
    images, labels = levels.reshape(len(levels), -1), values["shape"]
    train, validation, test = (Part(part, images[rows], labels[rows]) for part, rows in _rows().items())
    digest = hashlib.sha256(repr(PARTS).encode() + levels.tobytes()).hexdigest()
    return Parts(name="shapes", image_shape=(channels, size, size), train=train, validation=validation, test=test, digest=digest)


def _images(values: Mapping[str, Whole], channels: int, size: int) -> npt.NDArray[np.uint8]:
    """Return the images of these factors, uint8 (N, C, size, size)."""
    reach, step = FIRST * size // 64, STEP * size // 64
    shares = np.array(
        [
            [[_share(figure, radius * size // 64, angle, reach) for angle in range(FACTORS["angle"])] for radius in RADII]
            for figure in FIGURES
        ]
    )
    shape, scale, angle, x, y = (values[factor] for factor in FACTORS)
    figure, ground = (c[:, :, None, None] for c in _colours(values, channels))
    images = np.empty((len(x), channels, size, size), dtype=np.uint8)
    images[:] = ground
    for i, (left, top) in enumerate(zip((x * step).tolist(), (y * step).tolist(), strict=True)):
        share = shares[shape[i], scale[i], angle[i]]
        stamp = (share * figure[i] + (255 - share) * ground[i] + 127) // 255
        images[i, :, top : top + 2 * reach, left : left + 2 * reach] = stamp
    return images


def _colours(values: Mapping[str, Whole], channels: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """Return the levels of the figures and those of the grounds, (N, C)."""
    if channels == 1:
        white = np.full((len(values["shape"]), 1), 255, dtype=np.uint16)
        return white, 0 * white
    figures, grounds = (np.array(colours, dtype=np.uint16) for colours in (FIGURE_COLOURS, GROUND_COLOURS))
    return figures[values["figure"]], grounds[values["ground"]]


def _share(figure: str, radius: int, angle: int, reach: int) -> npt.NDArray[np.uint16]:
    """Return how much a figure in the middle covers of each pixel, in 255ths, (2 reach, 2 reach).

    Lengths are counted in 2 FINE a pixel, so that the points in it have whole numbers, and are rounded to such after the turn.
    """
    points = np.arange(1 - 2 * FINE * reach, 2 * FINE * reach, 2, dtype=np.int64)
    right, up = points[None, :], -points[:, None]
    cos, sin = COSINES[angle], COSINES[-1 - angle]
    u, v = (cos * right + sin * up + 8192) // 16384, (cos * up - sin * right + 8192) // 16384
    r = 2 * FINE * radius
    match figure:
        case "square":
            inside = (abs(u) <= r) & (abs(v) <= r)
        case "ellipse":  # of half axes 1.4 r and 0.7 r
            inside = 25 * u**2 + 100 * v**2 <= 49 * r**2
        case _:  # the heart (u^2 + v^2 - s^2)^3 = s u^2 v^3, moved down by 0.29 s to have its centre of mass in the middle
            s = 11 * r // 10
            v = v + 29 * s // 100
            inside = (u**2 + v**2 - s**2) ** 3 <= s * u**2 * v**3
    covered: Whole = inside.reshape(2 * reach, FINE, 2 * reach, FINE).sum(axis=(1, 3))
    return ((255 * covered + FINE**2 // 2) // FINE**2).astype(np.uint16)
