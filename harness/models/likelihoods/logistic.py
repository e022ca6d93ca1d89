"""Logistics in bins of one grey level each, open-ended at 0 and 255, and the likelihood of one for every value."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.models.likelihoods.heads import Head, HeadKernel, Observation
from harness.models.likelihoods.protocol import MAX_LEVEL, SATURATED, Noise, uniform

LOG_SCALE_FLOOR, LOG_SCALE_CEILING = -7.0, 7.0
LOG_SCALE_START = -2.0


def centre_of(a: Tensor) -> Tensor:
    """Return m = a + 1/2 for a decoder output a, in units of the [0, 1] axis; it may be outside of it."""
    return a + 0.5


def log_scale_of(b: Tensor) -> Tensor:
    """Return log s = b - 2 clamped to [-7, 7] for a decoder output b, with s in units of the [0, 1] axis."""
    return (b + LOG_SCALE_START).clamp(LOG_SCALE_FLOOR, LOG_SCALE_CEILING)


def open_ends(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `log_level` adds at level 0 and at level 255, (..., P) each: 0 elsewhere.

    They are added, not masked, which is several times faster on a CPU.
    """
    first = (x < 0.5 / MAX_LEVEL).to(x.dtype) * SATURATED
    return first, (x > 1 - 0.5 / MAX_LEVEL).to(x.dtype) * SATURATED


def log_level(distance: Tensor, inverse: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Return log[F(d + 1/510) - F(d - 1/510)], F(t) = sigmoid(t / s), (..., P): the probability of a level of a logistic.

    By sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) it is a sum of stable terms.

    Args:
        distance: d, from the logistic's centre to x, in units of the [0, 1] axis.
        inverse: 1 / s, of which a backward pass keeps no more than itself.
        first: Of `open_ends`: the lower F counts as 0 at level 0.
        last: Of `open_ends`: the upper F counts as 1 at level 255.
    """
    offset = distance * inverse
    half = inverse * (0.5 / MAX_LEVEL)
    below_upper = F.logsigmoid(offset + half + last)
    above_lower = F.logsigmoid(half - offset + first)
    return below_upper + above_lower + torch.expm1(-2 * half - first - last).neg().log()


def clipped_mean(m: Tensor, s: Tensor) -> Tensor:
    """Return s (softplus(m/s) - softplus((m-1)/s)), the mean of a logistic of centre m and scale s clipped to [0, 1]."""
    return s * (F.softplus(m / s) - F.softplus((m - 1) / s))


def rounded_draw(m: Tensor, s: Tensor, generator: torch.Generator) -> Tensor:
    """Return m + s logit(u) rounded to the nearest level and clipped to 0..255, over 255: a draw of a discretized logistic."""
    x = m + s * torch.logit(uniform(m, generator))
    return (x * MAX_LEVEL).round().clamp(0, MAX_LEVEL) / MAX_LEVEL


@dataclass(frozen=True)
class DiscretizedLogistic:
    """A pmf on 0..255: differences of the logistic CDF over each level, open-ended at 0 and 255.

    P(v) = F((v + 1/2)/255) - F((v - 1/2)/255) with F(t) = sigmoid((t - m)/s), F = 0 below level 0 and 1 above level 255 (Kingma et
    al., 2016, https://arxiv.org/abs/1606.04934; Salimans et al., 2017, https://arxiv.org/abs/1701.05517). m = a + 1/2 is unbounded,
    as in those papers: with open ends the best m of a black pixel is below 0, where a sigmoid cannot be (docs/log.md). log s is a
    decoder output minus 2, clamped to [-7, 7].
    """

    outputs: int = 2
    shared: int = 0
    noise: Noise = "none"
    scale_floor: float | None = math.exp(LOG_SCALE_FLOOR)
    channels: int | None = None

    @property
    def kernel(self) -> HeadKernel:
        """How it is computed natively."""
        settings = (LOG_SCALE_START, LOG_SCALE_FLOOR, LOG_SCALE_CEILING)
        return HeadKernel(Head.DISCRETIZED_LOGISTIC, settings, Observation.GREY)

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """Return x = v / 255, (..., P); u is not used."""
        return v / MAX_LEVEL

    def log_scale(self, *out: Tensor) -> Tensor:
        """Return log s, (..., P), with s in units of the [0, 1] axis."""
        return log_scale_of(out[1])

    @staticmethod
    def centre(*out: Tensor) -> Tensor:
        """Return m, (..., P), in units of the [0, 1] axis; it may be outside of it."""
        return centre_of(out[0])

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return sum_p log P(255 x) in nats: (..., P) to (...)."""
        return log_level(x - self.centre(*out), (-self.log_scale(*out)).exp(), *open_ends(x)).sum(-1)

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        """Return sum_p log P(v) in nats: (..., P) to (...)."""
        return self.log_prob(v / MAX_LEVEL, *out)

    def exponential_family(self, *out: Tensor) -> None:
        """Return None: log p(x|z) is not affine in x and x^2."""
        return None

    def mean(self, *out: Tensor) -> Tensor:
        """Return s (softplus(m/s) - softplus((m-1)/s)), (..., P): the mean of the logistic clipped to [0, 1].

        It is the pmf's mean to within half a level.
        """
        return clipped_mean(self.centre(*out), self.log_scale(*out).exp())

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """Return a draw of v / 255, (..., P): m + s logit(u) rounded to the nearest level and clipped to 0..255."""
        return rounded_draw(self.centre(*out), self.log_scale(*out).exp(), generator)

    def noise_scale(self, *out: Tensor) -> Tensor:
        """Return s, (..., P), in units of the [0, 1] axis."""
        return self.log_scale(*out).exp()

    def misfit(self, x: Tensor, *out: Tensor) -> None:
        """Return None: with open ends the best scale of a black pixel is no scale of its errors."""
        return None
