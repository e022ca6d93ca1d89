"""p(x|z): every reconstruction loss as a log-probability, in nats per image.

Shapes: x is (..., P). A decoder's output `out` is a tuple of tensors broadcastable to x: `params` of them per pixel from
the network, then `shared` learned scalars of shape (..., 1, 1). v are grey levels 0..255, u is uniform noise on [0, 1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 255
LOG_2PI = math.log(2 * math.pi)
SIGMA_FLOOR = 1 / 510  # half a grey level: on lattice data a learned sigma has no other bound
LOG_SIGMA_START = math.log(0.25)  # about the error of the pixel-mean image on MNIST, 0.26: lr 3e-4 moves it 0.3 per 1k steps
LOG_SCALE_FLOOR, LOG_SCALE_CEILING = -7.0, 7.0
LOG_SIGMA_CEILING = 7.0
LOG_SCALE_START = -2.0
LOGIT_BOUND = 300.0
SERIES_BELOW = 0.05
SERIES_AT_BORDER = math.log(math.sinh(SERIES_BELOW / 2) / (SERIES_BELOW / 2))
SATURATED = 1e9  # sigmoid is exactly 1 here and its gradient exactly 0, in any float


class Likelihood(Protocol):
    """What a reconstruction loss must answer. Implementations are frozen dataclasses; none overrides another."""

    @property
    def params(self) -> int:
        """Outputs of the decoder per pixel."""

    @property
    def shared(self) -> int:
        """Learned scalars that all pixels and images of a trial share."""

    @property
    def noisy(self) -> bool:
        """Whether `observe` consumes noise: then every use of an image draws fresh u."""

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """The data as the model sees and scores it: grey levels v (..., P) in 0..255 and noise u to x (..., P)."""

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over pixels: (..., P) to (...)."""

    def mean(self, *out: Tensor) -> Tensor:
        """E[x|z], the image to show and to measure the squared error of: (..., P) on [0, 1]."""

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """One draw of x given z, (..., P)."""

    def noise_scale(self, *out: Tensor) -> Tensor | None:
        """The standard deviation (or scale) of the pixel noise on [0, 1] where the model has one."""


def uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """u on (0, 1), shaped as `like`."""
    u = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    return u.clamp_(1e-7, 1 - 1e-7)


@dataclass(frozen=True)
class Bernoulli:
    """log p = x l - log(1 + exp(l)) with the logit l, never from a probability: in fp32 sigmoid(20) is 1.

    On grey pixels (`grey=True`, "BCE") it is a loss but no likelihood of the data: its sum over grey values is not 1.
    On binarised pixels (`bernoulli`) x = [u < v/255]: fresh u is dynamic binarisation, frozen u static, u = 1/2 threshold
    (Salakhutdinov & Murray, 2008; Burda et al., 2016, https://arxiv.org/abs/1509.00519).
    """

    grey: bool
    params: int = 1
    shared: int = 0

    @property
    def noisy(self) -> bool:
        return not self.grey

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        return v / LEVELS if self.grey else (u < v / LEVELS).to(v.dtype)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        (logit,) = out
        return -F.binary_cross_entropy_with_logits(logit, x, reduction="none").sum(-1)

    def mean(self, *out: Tensor) -> Tensor:
        return out[0].sigmoid()

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        p = self.mean(*out)
        return (uniform(p, generator) < p).to(p.dtype)

    def noise_scale(self, *out: Tensor) -> None:
        return None


@dataclass(frozen=True)
class Gaussian:
    """Normal(sigmoid(a), sigma) on v/255, all constants kept.

    `sigma="fixed"` is the squared error with sigma = 1 ("MSE"); `"shared"` learns one sigma for all pixels (sigma-VAE, Rybkin
    et al., 2021, https://arxiv.org/abs/2006.13202); `"pixel"` decodes a sigma for every pixel. A learned sigma is
    1/510 + exp(s)/4: the floor is that paper's soft clip of log sigma, since floor + softplus(s - floor) = log(e^floor + e^s).
    """

    sigma: Literal["fixed", "shared", "pixel"]
    noisy: bool = False

    @property
    def params(self) -> int:
        return 2 if self.sigma == "pixel" else 1

    @property
    def shared(self) -> int:
        return int(self.sigma == "shared")

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        return v / LEVELS

    def noise_scale(self, *out: Tensor) -> Tensor:
        """sigma, broadcastable to (..., P)."""
        if self.sigma == "fixed":
            return out[0].new_ones(())
        return SIGMA_FLOOR + (out[1] + LOG_SIGMA_START).clamp_max(LOG_SIGMA_CEILING).exp()

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        error, pixels = x - self.mean(*out), x.shape[-1]
        constant = -0.5 * LOG_2PI * pixels
        if self.sigma == "pixel":
            sigma = self.noise_scale(*out)
            return constant - (0.5 * (error / sigma).square() + sigma.log()).sum(-1)
        sigma = self.noise_scale(*out).squeeze(-1) if self.sigma == "shared" else self.noise_scale(*out)
        return constant - 0.5 * error.square().sum(-1) / sigma.square() - pixels * sigma.log()

    def mean(self, *out: Tensor) -> Tensor:
        return out[0].sigmoid()

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        mean = self.mean(*out)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + self.noise_scale(*out) * noise


@dataclass(frozen=True)
class ContinuousBernoulli:
    """The Bernoulli form normalised over [0, 1] (Loaiza-Ganem & Cunningham, 2019, https://arxiv.org/abs/1907.06845).

    log p = (x - 1/2) l - log(sinh(a/2) / (a/2)) with the logit l and a = |l|: smooth and even in l. A density, so it
    trains on dequantised pixels (v+u)/256: on raw v/255 it would chase the lattice. |l| is clamped to 300, beyond
    any use: the best logit of an all-black pixel is -512, and the mean image must be able to reach black.
    """

    params: int = 1
    shared: int = 0
    noisy: bool = True

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        return (v + u) / (LEVELS + 1)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        logit = out[0].clamp(-LOGIT_BOUND, LOGIT_BOUND)
        return ((x - 0.5) * logit - self.log_norm(logit)).sum(-1)

    @staticmethod
    def log_norm(logit: Tensor) -> Tensor:
        """log(sinh(a/2) / (a/2)), a = |logit|: -log(a / (1 - exp(-a))) + a/2, or a^2/24 - a^4/2880 near 0.

        The formula above a = 0.05 plus the series below it, each constant on the other side: no 0/0, no branches.
        """
        a = logit.abs()
        above, square = a.clamp_min(SERIES_BELOW), a.clamp_max(SERIES_BELOW).square()
        return above / 2 - (above / (1 - (-above).exp())).log() + square * (1 / 24 - square / 2880) - SERIES_AT_BORDER

    def mean(self, *out: Tensor) -> Tensor:
        logit = out[0].clamp(-LOGIT_BOUND, LOGIT_BOUND)
        small = logit.abs() < SERIES_BELOW
        l_safe = torch.where(small, 1.0, logit)
        exact = -1 / torch.expm1(-l_safe) - 1 / l_safe
        return torch.where(small, 0.5 + logit / 12 - logit**3 / 720, exact)

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        logit = out[0].clamp(-LOGIT_BOUND, LOGIT_BOUND)
        u = uniform(logit, generator)
        a = logit.abs()
        a_safe = torch.where(a < 1e-3, 1.0, a)
        low = torch.where(a < 1e-3, u, -torch.log1p(u * torch.expm1(-a_safe)) / a_safe)  # the inverse CDF for -a
        return torch.where(logit > 0, 1 - low, low)

    def noise_scale(self, *out: Tensor) -> None:
        return None


@dataclass(frozen=True)
class DiscretizedLogistic:
    """A pmf on 0..255: differences of the logistic CDF over 256 levels, the tails of 0 and 255 open.

    P(v) = F((v + 1/2)/255) - F((v - 1/2)/255) with F(t) = sigmoid((t - m)/s), F = 0 below level 0 and 1 above level 255
    (Kingma et al., 2016, https://arxiv.org/abs/1606.04934; Salimans et al., 2017, https://arxiv.org/abs/1701.05517). m = a + 1/2
    is free, as in those papers: with open tails a black pixel wants m below 0, which a sigmoid cannot give it (docs/log.md). log s
    comes from the decoder, clamped at -7. By sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) the
    log-probability is a sum of stable terms.
    """

    params: int = 2
    shared: int = 0
    noisy: bool = False

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        return v / LEVELS

    def log_scale(self, *out: Tensor) -> Tensor:
        """log s, (..., P), in units of the [0, 1] axis."""
        return (out[1] + LOG_SCALE_START).clamp(LOG_SCALE_FLOOR, LOG_SCALE_CEILING)

    @staticmethod
    def centre(*out: Tensor) -> Tensor:
        """m, (..., P), in units of the [0, 1] axis and free to leave it."""
        return out[0] + 0.5

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        inverse = (-self.log_scale(*out)).exp()
        offset = (x - self.centre(*out)) * inverse
        half = inverse * (0.5 / LEVELS)
        first = (x < 0.5 / LEVELS).to(x.dtype) * SATURATED  # added, not masked: several times faster on a CPU
        last = (x > 1 - 0.5 / LEVELS).to(x.dtype) * SATURATED
        below_upper = F.logsigmoid(offset + half + last)
        above_lower = F.logsigmoid(half - offset + first)
        width = torch.expm1(-2 * half - first - last).neg().log()
        return (below_upper + above_lower + width).sum(-1)

    def mean(self, *out: Tensor) -> Tensor:
        """E of the logistic clipped to [0, 1], s (softplus(m/s) - softplus((m-1)/s)): the pmf's mean to within half a level."""
        m, s = self.centre(*out), self.log_scale(*out).exp()
        return s * (F.softplus(m / s) - F.softplus((m - 1) / s))

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        m, s = self.centre(*out), self.log_scale(*out).exp()
        x = m + s * torch.logit(uniform(m, generator))
        return (x * LEVELS).round().clamp(0, LEVELS) / LEVELS

    def noise_scale(self, *out: Tensor) -> Tensor:
        return self.log_scale(*out).exp()


LIKELIHOODS: Mapping[str, Likelihood] = {
    "bce": Bernoulli(grey=True),
    "bernoulli": Bernoulli(grey=False),
    "mse": Gaussian(sigma="fixed"),
    "gaussian_shared": Gaussian(sigma="shared"),
    "gaussian_per_pixel": Gaussian(sigma="pixel"),
    "continuous_bernoulli": ContinuousBernoulli(),
    "discretized_logistic": DiscretizedLogistic(),
}
