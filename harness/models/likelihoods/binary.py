"""Likelihoods with a logit per pixel: Bernoulli on {0,1} (or as a loss on grey pixels), continuous Bernoulli on [0, 1]."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.models.likelihoods.protocol import LEVELS, ExponentialFamily, uniform

LOGIT_BOUND = 300.0
SERIES_BELOW = 0.05
SERIES_AT_BORDER = math.log(math.sinh(SERIES_BELOW / 2) / (SERIES_BELOW / 2))


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
    scale_floor: float | None = None

    @property
    def noisy(self) -> bool:
        return not self.grey

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        return v / LEVELS if self.grey else (u < v / LEVELS).to(v.dtype)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        logit, x = torch.broadcast_tensors(*out, x)
        return -F.binary_cross_entropy_with_logits(logit, x, reduction="none").sum(-1)

    def log_pmf(self, v: Tensor, *out: Tensor) -> None:
        """None: on grey pixels it is no probability, and on binarised pixels one of {0,1} only."""
        return None

    def product(self, *out: Tensor) -> ExponentialFamily:
        (logit,) = out
        return ExponentialFamily(logit, F.softplus(logit).sum(-1), logit.new_zeros(()))

    def mean(self, *out: Tensor) -> Tensor:
        return out[0].sigmoid()

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        p = self.mean(*out)
        return (uniform(p, generator) < p).to(p.dtype)

    def noise_scale(self, *out: Tensor) -> None:
        return None


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
    scale_floor: float | None = None

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        return (v + u) / (LEVELS + 1)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        logit = out[0].clamp(-LOGIT_BOUND, LOGIT_BOUND)
        return ((x - 0.5) * logit - self.log_norm(logit)).sum(-1)

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        """The integral over [v/256, (v+1)/256]: p at the bin's centre times sinh(t)/(256 t), t = l/512. In float64."""
        logit, bins = out[0].double().clamp(-LOGIT_BOUND, LOGIT_BOUND), LEVELS + 1
        log_p = self.log_prob((v + 0.5) / bins, logit) + (self.log_norm(logit / bins) - math.log(bins)).sum(-1)
        return log_p.to(v.dtype)

    def product(self, *out: Tensor) -> ExponentialFamily:
        logit = out[0].clamp(-LOGIT_BOUND, LOGIT_BOUND)
        return ExponentialFamily(logit, (self.log_norm(logit) + logit / 2).sum(-1), logit.new_zeros(()))

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
