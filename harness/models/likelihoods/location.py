"""Likelihoods with a centre and a scale per pixel: Gaussian and Laplace densities on v/255, a logistic pmf on 0..255."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.models.likelihoods.protocol import LEVELS, ExponentialFamily, uniform

LOG_2PI = math.log(2 * math.pi)
SIGMA_FLOOR = 1 / 510  # half a grey level: on lattice data a learned sigma has no other bound
LOG_SIGMA_START = math.log(0.25)  # about the error of the pixel-mean image on MNIST, 0.26: lr 3e-4 moves it 0.3 per 1k steps
LOG_B_START = math.log(0.15)  # the mean absolute deviation from that image, 0.15
LOG_SIGMA_CEILING = 7.0
LOG_SCALE_FLOOR, LOG_SCALE_CEILING = -7.0, 7.0
LOG_SCALE_START = -2.0
SATURATED = 1e9  # sigmoid is exactly 1 here and its gradient exactly 0, in any float


def learned_scale(raw: Tensor, log_start: float) -> Tensor:
    """1/510 + exp(raw + log_start): never below the floor, and with a gradient everywhere above it."""
    return SIGMA_FLOOR + (raw + log_start).clamp_max(LOG_SIGMA_CEILING).exp()


def log_bins(log_cdf: Callable[[Tensor], Tensor], v: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """log(F((v + 1/2 - 255 m) / (255 s)) - F((v - 1/2 - 255 m) / (255 s))), (..., P), with F = 0 below level 0 and 1 above 255.

    For F symmetric around a mean m in [0, 1]: so each bin can be mirrored to the side where F is small, [a, b] with
    a, b = -|c| -/+ h, and an open end always becomes a = -inf. log F(b) + log(1 - F(a)/F(b)) is then finite in the farthest tail.
    mean and scale must be float64: at a wide noise the bins are so thin that float32 cannot tell F(a) from F(b).
    """
    unit = LEVELS * scale
    distance, half = (v - LEVELS * mean).abs() / unit, 0.5 / unit
    ends = ((v == 0) | (v == LEVELS)).to(mean.dtype) * SATURATED
    upper = log_cdf(half - distance)
    return upper + (-torch.expm1(log_cdf(-half - distance - ends) - upper)).log()


@dataclass(frozen=True)
class Gaussian:
    """Normal(sigmoid(a), sigma) on v/255, all constants kept.

    `sigma="fixed"` is the squared error with sigma = `value`, 1 unless said ("MSE"); `"shared"` learns one sigma for all pixels
    (sigma-VAE, Rybkin et al., 2021, https://arxiv.org/abs/2006.13202); `"pixel"` decodes a sigma for every pixel. A learned sigma
    is 1/510 + exp(s)/4: the floor is that paper's soft clip of log sigma, since floor + softplus(s - floor) = log(e^floor + e^s).
    """

    sigma: Literal["fixed", "shared", "pixel"]
    value: float = 1.0
    noisy: bool = False

    @property
    def params(self) -> int:
        return 2 if self.sigma == "pixel" else 1

    @property
    def shared(self) -> int:
        return int(self.sigma == "shared")

    @property
    def scale_floor(self) -> float | None:
        return None if self.sigma == "fixed" else SIGMA_FLOOR

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        return v / LEVELS

    def noise_scale(self, *out: Tensor) -> Tensor:
        """sigma, broadcastable to (..., P)."""
        if self.sigma == "fixed":
            return out[0].new_full((), self.value)
        return learned_scale(out[1], LOG_SIGMA_START)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        error, pixels = x - self.mean(*out), x.shape[-1]
        constant = -0.5 * LOG_2PI * pixels
        if self.sigma == "pixel":
            sigma = self.noise_scale(*out)
            return constant - (0.5 * (error / sigma).square() + sigma.log()).sum(-1)
        sigma = self._sigma_per_image(*out)
        return constant - 0.5 * error.square().sum(-1) / sigma.square() - pixels * sigma.log()

    def _sigma_per_image(self, *out: Tensor) -> Tensor:
        """The one sigma of all pixels, broadcastable to (...)."""
        sigma = self.noise_scale(*out)
        return sigma.squeeze(-1) if self.sigma == "shared" else sigma

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        """Differences of the normal CDF over 256 levels, the tails of 0 and 255 open."""
        out = tuple(o.double() for o in out)
        return log_bins(torch.special.log_ndtr, v, self.mean(*out), self.noise_scale(*out)).sum(-1).to(v.dtype)

    def product(self, *out: Tensor) -> ExponentialFamily | None:
        """eta = m/s^2, precision = 1/s^2; None with a sigma per pixel."""
        if self.sigma == "pixel":
            return None
        mean, sigma = self.mean(*out), self._sigma_per_image(*out)
        precision = sigma.square().reciprocal()
        log_norm = precision * mean.square().sum(-1) / 2 + mean.shape[-1] * (sigma.log() + LOG_2PI / 2)
        return ExponentialFamily(mean / self.noise_scale(*out).square(), log_norm, precision)

    def mean(self, *out: Tensor) -> Tensor:
        return out[0].sigmoid()

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        mean = self.mean(*out)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + self.noise_scale(*out) * noise


@dataclass(frozen=True)
class Laplace:
    """Laplace(sigmoid(a), b) on v/255: log p = -|x - m|/b - log(2b), with one learned b = 1/510 + 0.15 exp(s) for all pixels.

    Its best m is a median, and its best b the mean absolute error: what sigma is to the squared error (`Gaussian`, shared).
    """

    params: int = 1
    shared: int = 1
    noisy: bool = False
    scale_floor: float | None = SIGMA_FLOOR

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        return v / LEVELS

    def noise_scale(self, *out: Tensor) -> Tensor:
        """b, (..., 1, 1); the standard deviation is sqrt(2) b."""
        return learned_scale(out[1], LOG_B_START)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        b = self.noise_scale(*out).squeeze(-1)
        return -(x - self.mean(*out)).abs().sum(-1) / b - x.shape[-1] * (2 * b).log()

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        """Differences of the Laplace CDF over 256 levels, the tails of 0 and 255 open."""
        out = tuple(o.double() for o in out)
        return log_bins(self.log_cdf, v, self.mean(*out), self.noise_scale(*out)).sum(-1).to(v.dtype)

    @staticmethod
    def log_cdf(t: Tensor) -> Tensor:
        """log F of Laplace(0, 1): t - log 2 below 0 and log(1 - exp(-t)/2) above, each term constant on the other side."""
        return t.clamp_max(0) + torch.log1p(-0.5 * (-F.relu(t)).exp())

    def product(self, *out: Tensor) -> None:
        return None

    def mean(self, *out: Tensor) -> Tensor:
        return out[0].sigmoid()

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """m + b (e1 - e2), e1 and e2 from the exponential distribution."""
        mean = self.mean(*out)
        return mean + self.noise_scale(*out) * (uniform(mean, generator).log() - uniform(mean, generator).log())


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
    scale_floor: float | None = math.exp(LOG_SCALE_FLOOR)

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

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        return self.log_prob(v / LEVELS, *out)

    def product(self, *out: Tensor) -> None:
        return None

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
