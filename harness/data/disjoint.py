"""Equal images in two splits of a data set: found, told, left out. Shapes: N images, P pixels."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness import catalog
from harness.data.parts import Labels, Levels, Part, Parts, Say


class Shared(NamedTuple):
    """The images of one split that are in another split too, byte for byte.

    Attributes:
        part: The name of the one split.
        other: The name of the other.
        rows: Which images of `part`, rising; at least one.
        twin: The image of `other` that equals the first of them.
    """

    part: str
    other: str
    rows: tuple[int, ...]
    twin: int


def shared(splits: Sequence[Part]) -> list[Shared]:
    """Return what each split shares with each of the splits behind it; pairs that share nothing are left out."""
    images = [[image.tobytes() for image in split.levels] for split in splits]
    where = [{image: row for row, image in enumerate(own)} for own in images]
    found = []
    for i, part in enumerate(splits):
        for j in range(i + 1, len(splits)):
            rows = tuple(row for row, image in enumerate(images[i]) if image in where[j])
            if rows:
                found.append(Shared(part.name, splits[j].name, rows, where[j][images[i][rows[0]]]))
    return found


def in_words(found: Sequence[Shared]) -> str:
    """Return what splits share, a line per pair, with the first image that they do."""
    return "\n".join(
        f"{len(s.rows):,} image{'s' * (len(s.rows) != 1)} of the {s.part} split {'are' if len(s.rows) != 1 else 'is'} "
        f"in the {s.other} split too, the first: {s.part}[{s.rows[0]}] = {s.other}[{s.twin}]"
        for s in found
    )


def without(split: Part, found: Sequence[Shared]) -> Part:
    """Return a split without the images that it shares with the splits behind it, as `shared` found them; itself if with none."""
    rows = sorted({row for s in found if s.part == split.name for row in s.rows})
    if not rows:
        return split
    kept = np.ones(len(split), dtype=bool)
    kept[rows] = False
    return Part(split.name, split.levels[kept], None if split.labels is None else split.labels[kept])


def three_splits(
    name: str,
    image_shape: tuple[int, int, int],
    *,
    train: tuple[Levels, Labels],
    test: tuple[Levels, Labels],
    files: Sequence[bytes],
    say: Say,
) -> Parts:
    """Return a data set that is published in two splits, of which the last training images become the validation split.

    What is in the test split is left out of validation and training, and what is in validation out of training; that is said, and
    makes another digest.

    Args:
        name: Of the data set in the catalog, which says how many images validate.
        image_shape: (C, H, W) of an image, so P = C H W.
        train: The published training images in their order, uint8 (N, P), and their classes, int64 (N,).
        test: The published test images, likewise.
        files: The bytes of the published files, for the digest.
        say: Takes a message about images that are left out.
    """
    n = len(train[0]) - catalog.DATASETS[name].validation
    parts = [
        Part("train", train[0][:n], train[1][:n]),
        Part("validation", train[0][n:], train[1][n:]),
        Part("test", *test),
    ]
    twice = shared(parts)
    if twice:
        say(f"{name}: left out of the first split of each pair:\n{in_words(twice)}")
    left_out = [f"without {s.part}{list(s.rows)}" for s in twice]
    lines = [*(hashlib.sha256(file).hexdigest() for file in files), f"train[:{n}] train[{n}:] test", *left_out]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    splits = {part.name: without(part, twice) for part in parts}
    return Parts(name=name, image_shape=image_shape, digest=digest, disjoint=True, **splits)
