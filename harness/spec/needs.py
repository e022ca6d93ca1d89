"""What a trial and its images must be like for some scores. Torch is not imported here."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from harness.scores import EXACT_LATENTS, FEATURE_BATCH, FEATURES, MOST_CLASSES, NEEDS, NEIGHBOURS
from harness.spec.trial import TrialSpec


class Counts(NamedTuple):
    """How many images a data set has.

    Attributes:
        train: Images to train on.
        test: Images for final scores.
        classes: Classes among the former; 0 without labels.
    """

    train: int
    test: int
    classes: int


# The needs of `harness.scores` that a spec can tell of; it knows nothing of images, nor of a likelihood's scale of noise.
MEETS: Mapping[str, Callable[[TrialSpec], bool]] = {
    "grey_pmf": lambda spec: spec.has_grey_pmf,
    "exact": lambda spec: spec.latent <= EXACT_LATENTS,
    "deep": lambda spec: spec.evaluation in ("full", "thorough"),
    "held_out": lambda spec: spec.fit_on == "train",
    "epochs": lambda spec: spec.epochs > 1,
    "average": lambda spec: spec.ema_decay > 0,
    "patience": lambda spec: spec.patience > 0,
}


class DataNeed(NamedTuple):
    """A need that images can tell of.

    Attributes:
        met: Whether a data set has what is needed.
        got: What it has of it, in words.
    """

    met: Callable[[Counts], bool]
    got: Callable[[Counts], str]


DATA_NEEDS: Mapping[str, DataNeed] = {
    "labels": DataNeed(
        met=lambda has: 2 <= has.classes <= MOST_CLASSES,  # one class is as none: there is nothing to tell apart
        got=lambda has: ("no labels", "one class")[has.classes] if has.classes < 2 else f"{has.classes:,}",
    ),
    "features": DataNeed(
        met=lambda has: has.train >= FEATURE_BATCH and has.test > FEATURES,  # else the test images' Gaussian is flat
        got=lambda has: f"{has.train:,} and {has.test:,}",
    ),
    "neighbours": DataNeed(met=lambda has: has.train >= NEIGHBOURS, got=lambda has: f"{has.train:,}"),
}


def unmet(needs: Iterable[str], counts: Counts) -> list[str]:
    """Return in words which of these needs a data set does not meet, and what it has instead.

    >>> unmet(("labels", "exact"), Counts(train=100, test=20, classes=1))
    ['labels of 2 to 1,000 classes (got one class)']
    """
    return [
        f"{NEEDS[need]} (got {DATA_NEEDS[need].got(counts)})"
        for need in needs
        if need in DATA_NEEDS and not DATA_NEEDS[need].met(counts)
    ]
