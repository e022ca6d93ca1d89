"""The likelihoods and the kinds of images that the native kernels know, by number: the order is that of harness/kernels/native."""

from enum import IntEnum
from typing import NamedTuple


class Observation(IntEnum):
    """What is seen of grey levels v (native/images.cpp): v/255; [u < v/255]; (v + u)/256; [1/2 < v/255]."""

    GREY = 0
    BINARISED = 1
    DEQUANTISED = 2
    THRESHOLD = 3


class Head(IntEnum):
    """What computes log p(x|z) and its gradient (native/heads.cpp), and the settings that it takes, in their order.

    BERNOULLI and CATEGORICAL take none, GAUSSIAN sigma, CONTINUOUS_BERNOULLI the bound of |logit|. GAUSSIAN_SHARED,
    GAUSSIAN_PER_PIXEL and LAPLACE take the floor of their learned scale, its logarithm above the floor at the start, and that
    logarithm's ceiling. DISCRETIZED_LOGISTIC takes the logarithm of its scale at the start, and its bounds. LOGISTIC_MIXTURE
    (native/mixture.h) takes the numbers of its components and channels, and then the same.
    """

    BERNOULLI = 0
    GAUSSIAN = 1
    GAUSSIAN_SHARED = 2
    GAUSSIAN_PER_PIXEL = 3
    CONTINUOUS_BERNOULLI = 4
    LAPLACE = 5
    DISCRETIZED_LOGISTIC = 6
    CATEGORICAL = 7
    LOGISTIC_MIXTURE = 8


MOST_SETTINGS = 5  # of any head; there is room for as many, whatever the head

# Those whose output is the natural parameter of x: the gradient of -log p(x|z) by it is E[x|z] - x.
NATURAL = frozenset({Head.BERNOULLI, Head.CONTINUOUS_BERNOULLI})


class HeadKernel(NamedTuple):
    """How the native kernels compute a likelihood.

    Attributes:
        kind: What computes log p(x|z).
        settings: The constants that it takes.
        observe: What the likelihood's `observe` computes.
        of_levels: Whether they compute `log_pmf` too (native/levels.cpp).
        gradient: Whether they compute the gradient too; if not, training takes it from autograd.
    """

    kind: Head
    settings: tuple[float, ...]
    observe: Observation
    of_levels: bool = True
    gradient: bool = True
