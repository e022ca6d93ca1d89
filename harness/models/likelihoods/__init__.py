"""p(x|z): every reconstruction loss as a log-probability, in nats per image.

Shapes: x is (..., P). A decoder's output `out` is a tuple of tensors broadcastable to x: `params` of them per pixel from
the network, then `shared` learned scalars of shape (..., 1, 1). v are grey levels 0..255, u is uniform noise on [0, 1).
"""

from collections.abc import Mapping

from harness.models.likelihoods.binary import Bernoulli, ContinuousBernoulli
from harness.models.likelihoods.lanewise import Lanewise
from harness.models.likelihoods.levels import BetaBinomial, Categorical
from harness.models.likelihoods.location import LOG_SCALE_FLOOR, SIGMA_FLOOR, DiscretizedLogistic, Gaussian, Laplace
from harness.models.likelihoods.protocol import LEVELS, ExponentialFamily, Likelihood

__all__ = [
    "LEVELS",
    "LIKELIHOODS",
    "LOG_SCALE_FLOOR",
    "SIGMA_FLOOR",
    "Bernoulli",
    "BetaBinomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "ExponentialFamily",
    "Gaussian",
    "Lanewise",
    "Laplace",
    "Likelihood",
]

LIKELIHOODS: Mapping[str, Likelihood] = {
    "bce": Bernoulli(grey=True),
    "bernoulli": Bernoulli(grey=False),
    "mse": Gaussian(sigma="fixed"),
    "gaussian_shared": Gaussian(sigma="shared"),
    "gaussian_per_pixel": Gaussian(sigma="pixel"),
    "continuous_bernoulli": ContinuousBernoulli(),
    "laplace": Laplace(),
    "discretized_logistic": DiscretizedLogistic(),
    "beta_binomial": BetaBinomial(),
    "categorical": Categorical(),
}
