"""How many images and draws the scores of a trained trial take."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness import catalog
from harness.metrics.quadrature import SIDE, TOLERANCE


@dataclass(frozen=True)
class Depth:
    """The numbers of images and draws that the costly scores take.

    Attributes:
        samples: Draws of z per image of the ELBO, at least 2.
        draws: Importance draws per image.
        images: Images of the importance-weighted bounds, the first ones of the test set.
        exact_images: Images of the quadrature if the likelihood is an exponential family.
        other_images: Images of the quadrature if it is not, and for tier C; 0 leaves these scores out.
        tolerance: Of the quadrature, a share of an image's integral per cell.
        side: Of the quadrature's widest cells, in units of z.
    """

    samples: int
    draws: int
    images: int
    exact_images: int
    other_images: int
    tolerance: float = TOLERANCE
    side: float = SIDE


DEPTHS: Mapping[str, Depth] = {name: Depth(**entry.fixed) for name, entry in catalog.EVALUATIONS.items()}
