"""Data sets as they are read, in NumPy's arrays: what can be told of them without torch.

Shapes: N images, C channels, H rows, W columns, P = C H W values.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.spec import Counts

Say = Callable[[str], None]
Levels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A split of a data set.

    Attributes:
        name: train, validation or test.
        levels: Images as levels 0..255, one channel after another, uint8 (N, P).
        labels: Their classes, int64 (N,); None if there are none.
    """

    name: str
    levels: Levels
    labels: Labels | None

    def __len__(self) -> int:
        return len(self.levels)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A data set in its three fixed splits, with the attributes of the `harness.data.Data` that `Data.of` makes of it."""

    name: str
    image_shape: tuple[int, int, int]
    train: Part
    validation: Part
    test: Part
    digest: str
    disjoint: bool = False

    @property
    def counts(self) -> Counts:
        """How many images and classes there are, by which some scores are left out."""
        classes = 0 if self.train.labels is None else len(np.unique(self.train.labels))
        return Counts(len(self.train), len(self.test), classes)

    @property
    def images_to_fit(self) -> dict[str, int]:
        """How many images train, by a trial's `fit_on`."""
        return {"train": len(self.train), "train+validation": len(self.train) + len(self.validation)}
