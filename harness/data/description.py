"""What a data set holds, in words: shape, levels, classes, equal and constant images. Shapes: N images, P = C H W values."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.data.splits import Data, Split

AT_A_TIME = 4096  # images that are counted, so that no wider copy of all is made
SHOWN = 12  # classes
TOP = 255


@dataclass(frozen=True, kw_only=True)
class Description:
    """What all images of a data set hold.

    Attributes:
        counts: How many values have each level, (256,).
        classes: How many images have each label; None if there are none.
        equal: How many images equal an earlier one of their split.
        first_equal: The first of them, as `train[3]`; empty if there is none.
        constant: How many images have one level throughout.
        first_constant: The first of them; empty if there is none.
    """

    counts: npt.NDArray[np.int64]
    classes: Counter[int] | None
    equal: int
    first_equal: str
    constant: int
    first_constant: str


def describe(data: Data) -> Description:
    """Return what all images of a data set hold."""
    splits = (data.train, data.validation, data.test)
    counts = sum((_level_counts(split) for split in splits), np.zeros(TOP + 1, np.int64))
    classes: Counter[int] | None = None
    if data.train.labels is not None:
        classes = Counter(label for split in splits if split.labels is not None for label in split.labels.tolist())
    equal = [place for split in splits for place in _equal(split)]
    constant = [f"{s.name}[{row}]" for s in splits for row in (s.levels == s.levels[:, :1]).all(1).nonzero()[:, 0].tolist()]
    return Description(
        counts=counts,
        classes=classes,
        equal=len(equal),
        first_equal=equal[0] if equal else "",
        constant=len(constant),
        first_constant=constant[0] if constant else "",
    )


def in_words(data: Data, found: Description | None = None) -> list[str]:
    """Return what one would train on, a line for each concern; `found` is what `describe` returned, if it was asked before."""
    found = found or describe(data)
    channels, height, width = data.image_shape
    parts = ", ".join(f"{split.name} {len(split):,}" for split in (data.train, data.validation, data.test))
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    return [
        f"{data.name}: {parts} images, {colour}, {height} x {width} (height x width)",
        f"levels: {_levels(found.counts)}",
        f"classes: {_classes(found.classes)}",
        f"equal images: {_some(found.equal, found.first_equal, 'like an earlier one of their split')}",
        f"constant images: {_some(found.constant, found.first_constant, 'of one level throughout')}",
        f"digest: {data.digest[:12]}",
    ]


def as_dict(data: Data, found: Description) -> dict[str, Any]:
    """Return what one would train on as a JSON document has it."""
    channels, height, width = data.image_shape
    return {
        "name": data.name,
        "channels": channels,
        "height": height,
        "width": width,
        **{split.name: len(split) for split in (data.train, data.validation, data.test)},
        "classes": None if found.classes is None else {str(label): found.classes[label] for label in sorted(found.classes)},
        "levels": {str(level): int(count) for level, count in enumerate(found.counts) if count},
        "equal": found.equal,
        "constant": found.constant,
        "digest": data.digest,
    }


def _level_counts(split: Split) -> npt.NDArray[np.int64]:
    """Return how many values of a split have each level, (256,)."""
    counts = np.zeros(TOP + 1, np.int64)
    for start in range(0, len(split), AT_A_TIME):
        counts += np.bincount(split.levels[start : start + AT_A_TIME].flatten().numpy(), minlength=TOP + 1)
    return counts


def _equal(split: Split) -> list[str]:
    """Return the images of a split that equal an earlier one, as `train[3]`."""
    seen: set[bytes] = set()
    found = []
    for row, image in enumerate(split.levels.numpy()):
        content = image.tobytes()
        if content in seen:
            found.append(f"{split.name}[{row}]")
        seen.add(content)
    return found


def _levels(counts: npt.NDArray[np.int64]) -> str:
    """Return in words how often each level occurs, (256,)."""
    levels, total = np.flatnonzero(counts), counts.sum()
    mean = float(counts @ np.arange(TOP + 1) / total)
    black, white = counts[0] / total, counts[TOP] / total
    if set(levels.tolist()) <= {0, TOP}:
        return f"binary, 0 or {TOP}; {white:.1%} are {TOP}"
    median = int(np.searchsorted(np.cumsum(counts), total / 2))
    return (
        f"{levels[0]} to {levels[-1]}, {len(levels)} of {TOP + 1} occur; {black:.1%} are 0, {white:.1%} are {TOP}; "
        f"mean {mean:.1f}, median {median}"
    )


def _classes(classes: Counter[int] | None) -> str:
    """Return in words how many images each class has."""
    if classes is None:
        return "no labels"
    some = ", ".join(f"{label}: {classes[label]:,}" for label in sorted(classes)[:SHOWN])
    rest = f", and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    return f"{len(classes)} ({some}{rest})"


def _some(count: int, first: str, what: str) -> str:
    """Return in words how many images are like this, and the first of them."""
    return f"{count:,} {what}, the first {first}" if count else "none"
