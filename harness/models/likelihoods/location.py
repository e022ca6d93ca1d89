"""Likelihoods with a centre and a scale: Gaussian and Laplace densities on v/255."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.models.likelihoods.heads import Head, HeadKernel, Observation
from harness.models.likelihoods.protocol import MAX_LEVEL, ExponentialFamily, Noise, uniform

LOG_2PI = math.log(2 * math.pi)
SIGMA_FLOOR = 1 / 510  # half a grey level: on lattice data a learned sigma has no other bound
LOG_SIGMA_START = math.log(0.25)  # about the error of the pixel-mean image on MNIST, 0.26: lr 3e-4 moves it 0.3 per 1k steps
LOG_B_START = math.log(0.15)  # the mean absolute deviation from that image, 0.15
LOG_SIGMA_CEILING = 7.0
FAR_TAIL = -30.0


def learned_scale(raw: Tensor, log_start: float) -> Tensor:
    """Return 1/510 + exp(raw + log_start), elementwise: never below the floor 1/510, and with a gradient everywhere above it."""
    return SIGMA_FLOOR + (raw + log_start).clamp_max(LOG_SIGMA_CEILING).exp()


def log_bins(log_cdf: Callable[[Tensor], Tensor], v: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return log(F((v + 1/2 - 255 m) / (255 s)) - F((v - 1/2 - 255 m) / (255 s))), (..., P).

    The lower end of level 0 counts as F = 0, the upper end of level 255 as F = 1. F must be symmetric around 0 and m in [0, 1].
    Each bin is then mirrored to the side where F is small, [a, b] with a, b = -|c| -/+ h, and an open end always becomes a = -inf;
    so log F(b) + log(1 - F(a)/F(b)) is finite in the farthest tail.

    Args:
        log_cdf: log F, elementwise.
        v: Grey levels 0..255, (..., P).
        mean: m on [0, 1], float64: for a wide scale the bins are so thin that float32 cannot tell F(a) from F(b).
        scale: s in units of the [0, 1] axis, float64, broadcastable to (..., P).
    """
    unit = MAX_LEVEL * scale
    distance, half = (v - MAX_LEVEL * mean).abs() / unit, 0.5 / unit
    upper = log_cdf(half - distance)
    inner = ((v > 0) & (v < MAX_LEVEL)).expand(upper.shape)
    lower = log_cdf((-half - distance)[inner])  # 19 % of MNIST: F takes most of the time
    return upper.masked_scatter(inner, upper[inner] + (-torch.expm1(lower - upper[inner])).log())


def log_ndtr(t: Tensor) -> Tensor:
    """Return log F(t) of the standard normal, elementwise, float64: log(erfc(-t / sqrt(2)) / 2) where that is above 1e-197.

    That takes half of the time of torch's function, which is left for what is farther.
    """
    far = t < FAR_TAIL
    near = (torch.special.erfc(t.clamp_min(FAR_TAIL) * -(0.5**0.5)) / 2).log()
    whole: Tensor = near.masked_scatter(far, torch.special.log_ndtr(t[far]))
    return whole


@dataclass(frozen=True)
class Gaussian:
    """Normal(m, sigma) on v/255 with m = sigmoid(a), all constants kept.

    A learned sigma is 1/510 + exp(s)/4: the floor is the soft clip of log sigma of Rybkin et al., 2021
    (https://arxiv.org/abs/2006.13202), since floor + softplus(s - floor) = log(e^floor + e^s).

    Attributes:
        learned: "nothing" is the squared error with a fixed sigma ("MSE" at 1), "shared" learns one sigma for all pixels (the
            sigma-VAE of that paper), "pixel" decodes a sigma for every pixel.
        sigma: the fixed one.
    """

    learned: Literal["nothing", "shared", "pixel"]
    sigma: float = 1.0
    noise: Noise = "none"
    channels: int | None = None

    @property
    def outputs(self) -> int:
        """The number of decoder outputs per pixel: a, and s if there is a sigma for every pixel."""
        return 2 if self.learned == "pixel" else 1

    @property
    def shared(self) -> int:
        """The number of learned scalars: s if one sigma is learned for all pixels."""
        return int(self.learned == "shared")

    @property
    def scale_floor(self) -> float | None:
        """The lower bound of a learned sigma, 1/510; None if sigma is fixed."""
        return None if self.learned == "nothing" else SIGMA_FLOOR

    @property
    def kernel(self) -> HeadKernel:
        """How it is computed natively."""
        if self.learned == "nothing":
            of_levels = SIGMA_FLOOR <= self.sigma <= SIGMA_FLOOR + math.exp(LOG_SIGMA_CEILING)
            return HeadKernel(Head.GAUSSIAN, (self.sigma,), Observation.GREY, of_levels)
        kind = Head.GAUSSIAN_SHARED if self.learned == "shared" else Head.GAUSSIAN_PER_PIXEL
        return HeadKernel(kind, (SIGMA_FLOOR, LOG_SIGMA_START, LOG_SIGMA_CEILING), Observation.GREY)

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """Return x = v / 255, (..., P); u is not used."""
        return v / MAX_LEVEL

    def noise_scale(self, *out: Tensor) -> Tensor:
        """Return sigma, broadcastable to (..., P): the fixed one or 1/510 + exp(s)/4."""
        if self.learned == "nothing":
            return out[0].new_full((), self.sigma)
        return learned_scale(out[1], LOG_SIGMA_START)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return -sum_p [((x - m) / sigma)^2 / 2 + log sigma + log(2 pi) / 2] in nats: (..., P) to (...)."""
        error, pixels = x - self.mean(*out), x.shape[-1]
        constant = -0.5 * LOG_2PI * pixels
        if self.learned == "pixel":
            sigma = self.noise_scale(*out)
            return constant - (0.5 * (error / sigma).square() + sigma.log()).sum(-1)
        sigma = self._sigma_per_image(*out)
        return constant - 0.5 * error.square().sum(-1) / sigma.square() - pixels * sigma.log()

    def _sigma_per_image(self, *out: Tensor) -> Tensor:
        """Return the one sigma of all pixels, broadcastable to (...)."""
        sigma = self.noise_scale(*out)
        return sigma.squeeze(-1) if self.learned == "shared" else sigma

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        """Return sum_p of the log difference of the normal CDF over each level, open-ended at 0 and 255: (..., P) to (...)."""
        out = tuple(o.double() for o in out)
        return log_bins(log_ndtr, v, self.mean(*out), self.noise_scale(*out)).sum(-1).to(v.dtype)

    def exponential_family(self, *out: Tensor) -> ExponentialFamily | None:
        """Return eta = m / sigma^2 and precision = 1 / sigma^2, or None if there is a sigma for every pixel.

        log_norm = sum_p [m^2 / (2 sigma^2) + log sigma + log(2 pi) / 2].
        """
        if self.learned == "pixel":
            return None
        mean, sigma = self.mean(*out), self._sigma_per_image(*out)
        precision = sigma.square().reciprocal()
        return ExponentialFamily(mean / self.noise_scale(*out).square(), precision)

    def mean(self, *out: Tensor) -> Tensor:
        """Return m = sigmoid(a), (..., P)."""
        return out[0].sigmoid()

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """Return m + sigma eps with eps ~ N(0, 1), (..., P)."""
        mean = self.mean(*out)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + self.noise_scale(*out) * noise

    def misfit(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return ((x - m) / sigma)^2, (..., P)."""
        return ((x - self.mean(*out)) / self.noise_scale(*out)).square()


@dataclass(frozen=True)
class Laplace:
    """Laplace(m, b) on v/255 with m = sigmoid(a): log p = -|x - m|/b - log(2b), b = 1/510 + 0.15 exp(s) learned for all pixels.

    The m that maximises it is a median, and the b that does is the mean absolute error, as the best shared sigma of `Gaussian` is
    the root of the mean squared error.
    """

    outputs: int = 1
    shared: int = 1
    noise: Noise = "none"
    scale_floor: float | None = SIGMA_FLOOR
    channels: int | None = None

    @property
    def kernel(self) -> HeadKernel:
        """How it is computed natively."""
        return HeadKernel(Head.LAPLACE, (SIGMA_FLOOR, LOG_B_START, LOG_SIGMA_CEILING), Observation.GREY)

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """Return x = v / 255, (..., P); u is not used."""
        return v / MAX_LEVEL

    def noise_scale(self, *out: Tensor) -> Tensor:
        """Return b, (..., 1, 1); the standard deviation is sqrt(2) b."""
        return learned_scale(out[1], LOG_B_START)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return -sum_p [|x - m| / b + log(2b)] in nats: (..., P) to (...)."""
        b = self.noise_scale(*out).squeeze(-1)
        return -(x - self.mean(*out)).abs().sum(-1) / b - x.shape[-1] * (2 * b).log()

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        """Return sum_p of the log difference of the Laplace CDF over each level, open-ended at 0 and 255: (..., P) to (...)."""
        out = tuple(o.double() for o in out)
        return log_bins(self.log_cdf, v, self.mean(*out), self.noise_scale(*out)).sum(-1).to(v.dtype)

    @staticmethod
    def log_cdf(t: Tensor) -> Tensor:
        """Return log F(t) of Laplace(0, 1), elementwise: t - log 2 below 0 and log(1 - exp(-t)/2) above.

        It is a sum of two terms, each constant on the other side of 0, so there is no branch.
        """
        return t.clamp_max(0) + torch.log1p(-0.5 * (-F.relu(t)).exp())

    def exponential_family(self, *out: Tensor) -> None:
        """Return None: log p(x|z) is not affine in x and x^2."""
        return None

    def mean(self, *out: Tensor) -> Tensor:
        """Return m = sigmoid(a), (..., P)."""
        return out[0].sigmoid()

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """Return m + b (e1 - e2), (..., P), with e1 and e2 from the exponential distribution."""
        mean = self.mean(*out)
        return mean + self.noise_scale(*out) * (uniform(mean, generator).log() - uniform(mean, generator).log())

    def misfit(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return |x - m| / b, (..., P)."""
        return ((x - self.mean(*out)) / self.noise_scale(*out)).abs()
