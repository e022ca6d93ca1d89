"""Likelihoods with one logit per pixel: Bernoulli on {0,1} (or as a loss on grey pixels), continuous Bernoulli on [0, 1]."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.models.likelihoods.heads import Head, HeadKernel, Observation
from harness.models.likelihoods.protocol import MAX_LEVEL, ExponentialFamily, Noise, uniform

LOGIT_BOUND = 300.0
SERIES_BELOW = 0.05
SERIES_AT_BOUND = math.log(math.sinh(SERIES_BELOW / 2) / (SERIES_BELOW / 2))


@dataclass(frozen=True)
class Bernoulli:
    """Bernoulli with the logit l: log p = x l - log(1 + exp(l)), never computed from a probability: in fp32 sigmoid(20) is 1.

    On grey pixels (`grey=True`, "BCE") it is a loss but no likelihood of the data: its sum over grey values is not 1.
    On binarised pixels (`bernoulli`) x = [u < v/255]: fresh u is dynamic binarisation, frozen u static, u = 1/2 threshold
    (Salakhutdinov & Murray, 2008; Burda et al., 2016, https://arxiv.org/abs/1509.00519).

    Attributes:
        grey: True for x = v/255, False for binarised x.
        binarisation: how pixels are binarised.
    """

    grey: bool
    binarisation: Literal["dynamic", "static", "threshold"] = "dynamic"
    outputs: int = 1
    shared: int = 0
    scale_floor: float | None = None
    channels: int | None = None

    @property
    def noise(self) -> Noise:
        """The noise that binarises pixels."""
        noise: dict[str, Noise] = {"dynamic": "fresh", "static": "frozen", "threshold": "none"}
        return "none" if self.grey else noise[self.binarisation]

    @property
    def kernel(self) -> HeadKernel:
        """How it is computed natively; images of frozen noise are binarised before training, so they have 0 and 255 only."""
        binarised = Observation.BINARISED if self.noise == "fresh" else Observation.THRESHOLD
        return HeadKernel(Head.BERNOULLI, (), Observation.GREY if self.grey else binarised, of_levels=False)

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """Return x (..., P): v / 255 if `grey`, else [u < v/255] as 0 and 1, where u is 1/2 for a threshold."""
        return v / MAX_LEVEL if self.grey else (u < v / MAX_LEVEL).to(v.dtype)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return sum_p x l - log(1 + exp(l)) in nats: (..., P) to (...)."""
        logit, x = torch.broadcast_tensors(*out, x)
        return -F.binary_cross_entropy_with_logits(logit, x, reduction="none").sum(-1)

    def log_pmf(self, v: Tensor, *out: Tensor) -> None:
        """Return None: on grey pixels it is no probability, and on binarised pixels it is one of {0,1} only."""
        return None

    def exponential_family(self, *out: Tensor) -> ExponentialFamily:
        """Return eta = l and precision = 0; log_norm = sum_p log(1 + exp(l))."""
        (logit,) = out
        return ExponentialFamily(logit, logit.new_zeros(()))

    def mean(self, *out: Tensor) -> Tensor:
        """Return sigmoid(l), (..., P)."""
        return out[0].sigmoid()

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """Return a draw from {0,1} with probability sigmoid(l) of 1, (..., P); binary even if `grey`."""
        p = self.mean(*out)
        return (uniform(p, generator) < p).to(p.dtype)

    def noise_scale(self, *out: Tensor) -> None:
        """Return None: there is no scale of the noise apart from the mean."""
        return None

    def misfit(self, x: Tensor, *out: Tensor) -> None:
        """Return None: there is no scale of the noise apart from the mean."""
        return None


@dataclass(frozen=True)
class ContinuousBernoulli:
    """The Bernoulli form normalised over [0, 1] (Loaiza-Ganem & Cunningham, 2019, https://arxiv.org/abs/1907.06845).

    log p = (x - 1/2) l - log(sinh(a/2) / (a/2)) with the logit l and a = |l|; the last term is smooth and even in l. It is a
    density, so it trains on dequantised pixels (v+u)/256: on raw v/255 it would concentrate on the lattice of levels. |l| is
    clamped to 300: the best logit of an all-black pixel is -512, and the mean image must be able to reach black.
    """

    outputs: int = 1
    shared: int = 0
    noise: Noise = "fresh"
    scale_floor: float | None = None
    channels: int | None = None

    @property
    def kernel(self) -> HeadKernel:
        """How it is computed natively."""
        return HeadKernel(Head.CONTINUOUS_BERNOULLI, (LOGIT_BOUND,), Observation.DEQUANTISED)

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """Return the dequantised pixels x = (v + u) / 256, (..., P) on [0, 1)."""
        return (v + u) / (MAX_LEVEL + 1)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return sum_p (x - 1/2) l - log(sinh(a/2) / (a/2)) in nats: (..., P) to (...)."""
        logit = out[0].clamp(-LOGIT_BOUND, LOGIT_BOUND)
        return ((x - 0.5) * logit - self.log_norm(logit)).sum(-1)

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        """Return log P(v|z) = sum_p of the log integral of p over [v/256, (v+1)/256], in nats: (..., P) to (...).

        The integral is p at the bin's centre times sinh(t)/(256 t), t = l/512. It is computed in float64.
        """
        logit, bins = out[0].double().clamp(-LOGIT_BOUND, LOGIT_BOUND), MAX_LEVEL + 1
        log_p = self.log_prob((v + 0.5) / bins, logit) + (self.log_norm(logit / bins) - math.log(bins)).sum(-1)
        return log_p.to(v.dtype)

    def exponential_family(self, *out: Tensor) -> ExponentialFamily:
        """Return eta = l and precision = 0; log_norm = sum_p log(sinh(a/2) / (a/2)) + l/2."""
        logit = out[0].clamp(-LOGIT_BOUND, LOGIT_BOUND)
        return ExponentialFamily(logit, logit.new_zeros(()))

    @staticmethod
    def log_norm(logit: Tensor) -> Tensor:
        """Return log(sinh(a/2) / (a/2)) per pixel, a = |logit|: -log(a / (1 - exp(-a))) + a/2, or a^2/24 - a^4/2880 near 0.

        It is the sum of the formula, held constant below a = 0.05, and the series, held constant above: no 0/0 and no branches.
        """
        a = logit.abs()
        above, square = a.clamp_min(SERIES_BELOW), a.clamp_max(SERIES_BELOW).square()
        # Beyond 40 the power is less than a float64 tells from 0 beside 1, and beyond 87 so small that CPUs take 6 times as long.
        return (
            above / 2 - (above / (1 - (-above.clamp_max(40.0)).exp())).log() + square * (1 / 24 - square / 2880) - SERIES_AT_BOUND
        )

    def mean(self, *out: Tensor) -> Tensor:
        """Return 1 / (1 - exp(-l)) - 1/l, (..., P); for |l| < 0.05 its series 1/2 + l/12 - l^3/720.

        It is computed at -|l| and mirrored if l > 0, where no power overflows, nor does a gradient's.
        """
        logit = out[0].clamp(-LOGIT_BOUND, LOGIT_BOUND)
        small = logit.abs() < SERIES_BELOW
        a = torch.where(small, 1.0, logit.abs())
        low = 1 / a + (-a.clamp_max(40.0)).exp() / torch.expm1(-a)
        exact = torch.where(logit > 0, 1 - low, low)
        return torch.where(small, 0.5 + logit / 12 - logit**3 / 720, exact)

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """Return a draw from [0, 1], (..., P), by the inverse CDF of -|l|, mirrored if l > 0."""
        logit = out[0].clamp(-LOGIT_BOUND, LOGIT_BOUND)
        u = uniform(logit, generator)
        a = logit.abs()
        a_safe = torch.where(a < 1e-3, 1.0, a)
        low = torch.where(a < 1e-3, u, -torch.log1p(u * torch.expm1(-a_safe)) / a_safe)  # the inverse CDF for -a
        return torch.where(logit > 0, 1 - low, low)

    def noise_scale(self, *out: Tensor) -> None:
        """Return None: there is no scale of the noise apart from the mean."""
        return None

    def misfit(self, x: Tensor, *out: Tensor) -> None:
        """Return None: there is no scale of the noise apart from the mean."""
        return None
