"""Likelihoods p(x|z): every reconstruction loss as a log-probability, in nats per image.

In come data and the decoder's outputs as tensors, out come log-probabilities, mean images and draws of x. Shapes: x is (..., P).
`out` is a tuple of tensors broadcastable to x: the `outputs` per pixel of the decoder, (..., P) each, then `shared` learned
scalars, (..., 1, 1) each. v are grey levels 0..255, u is uniform noise on [0, 1). To add a likelihood, write a frozen dataclass
with the attributes and methods of `Likelihood` (protocol.py) and a line in catalog.py; a user's own needs fewer (own.py).
"""

from harness.models.likelihoods.binary import Bernoulli, ContinuousBernoulli
from harness.models.likelihoods.heads import MOST_SETTINGS, NATURAL, Head, HeadKernel, Observation
from harness.models.likelihoods.lanewise import Lanewise
from harness.models.likelihoods.levels import BetaBinomial, Categorical
from harness.models.likelihoods.location import SIGMA_FLOOR, Gaussian, Laplace
from harness.models.likelihoods.logistic import LOG_SCALE_FLOOR, DiscretizedLogistic
from harness.models.likelihoods.mixture import LogisticMixture
from harness.models.likelihoods.own import OwnLikelihood
from harness.models.likelihoods.protocol import MAX_LEVEL, ExponentialFamily, Likelihood, Noise

__all__ = [
    "LOG_SCALE_FLOOR",
    "MAX_LEVEL",
    "MOST_SETTINGS",
    "NATURAL",
    "SIGMA_FLOOR",
    "Bernoulli",
    "BetaBinomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "ExponentialFamily",
    "Gaussian",
    "Head",
    "HeadKernel",
    "Lanewise",
    "Laplace",
    "Likelihood",
    "LogisticMixture",
    "Noise",
    "Observation",
    "OwnLikelihood",
]
