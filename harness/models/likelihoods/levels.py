"""Likelihoods that are a pmf on grey levels 0..255 by themselves. They observe x = v/255; v comes back by rounding."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.models.likelihoods.protocol import LEVELS, uniform

LOG_SHAPE_BOUND = 10.0
INNER_BINS = 14


@dataclass(frozen=True)
class BetaBinomial:
    """v ~ Binomial(255, p), p ~ Beta(alpha, beta): P(v) = C(255, v) B(v + alpha, 255 - v + beta) / B(alpha, beta).

    As in BB-ANS (Townsend et al., 2019, https://arxiv.org/abs/1901.04866). The decoder gives log alpha and log beta, clamped at
    +-10 because exp overflows and little lies beyond: there log P(0) is -5e-7, and the variance within 0.6 % of the
    binomial's, the least there is. The terms reach 4e5 and cancel, so they are float64 whatever the input: float32 would be off by
    up to 0.06 nats a pixel.
    """

    params: int = 2
    shared: int = 0
    noisy: bool = False
    scale_floor: float | None = None

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        return v / LEVELS

    @staticmethod
    def shapes(*out: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and beta, (..., P) each, in float64."""
        alpha, beta = (o.double().clamp(-LOG_SHAPE_BOUND, LOG_SHAPE_BOUND).exp() for o in out)
        return alpha, beta

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        return self.log_pmf((x * LEVELS).round(), *out)

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        alpha, beta = self.shapes(*out)
        black, white = LEVELS - v.double(), v.double()
        choose = math.lgamma(LEVELS + 1) - torch.lgamma(white + 1) - torch.lgamma(black + 1)
        return (choose + log_beta(white + alpha, black + beta) - log_beta(alpha, beta)).sum(-1).to(v.dtype)

    def product(self, *out: Tensor) -> None:
        return None

    def mean(self, *out: Tensor) -> Tensor:
        """alpha / (alpha + beta)."""
        a, b = (o.clamp(-LOG_SHAPE_BOUND, LOG_SHAPE_BOUND) for o in out)
        return (a - b).sigmoid()

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """Polya's urn: 255 draws, the next is white with probability (alpha + whites so far) / (alpha + beta + draws so far)."""
        alpha, beta = self.shapes(*out)
        white = torch.zeros_like(alpha)
        for prior_samples in range(LEVELS):
            white += uniform(alpha, generator) < (alpha + white) / (alpha + beta + prior_samples)
        return (white / LEVELS).to(out[0].dtype)

    def noise_scale(self, *out: Tensor) -> None:
        return None


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """log B(a, b) of Euler's beta function."""
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


@dataclass(frozen=True)
class Categorical:
    """A softmax over 16 bins of levels, uniform inside a bin: P(v) = softmax(l)[bin(v)] / width(bin(v)).

    0 and 255 stand alone (81 % of MNIST), 1..254 share 14 bins of 18 or 19 levels. The head is that of PixelRNN (van den Oord et
    al., 2016, https://arxiv.org/abs/1601.06759) cut to a size: 256 outputs a pixel would be 51 M weights behind 256 hidden units.
    """

    params: int = INNER_BINS + 2
    shared: int = 0
    noisy: bool = False
    scale_floor: float | None = None

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        return v / LEVELS

    @staticmethod
    def bin_of(v: Tensor) -> Tensor:
        """bin(v), int64: 0 for level 0, 15 for level 255."""
        return 1 + torch.div((v.long() - 1) * INNER_BINS, LEVELS - 1, rounding_mode="floor")

    @staticmethod
    def bounds(like: Tensor) -> tuple[Tensor, Tensor]:
        """The first level of each bin and the number of its levels, (16,) each; made on the device, no copy from the host."""
        inner = torch.arange(INNER_BINS + 1, device=like.device, dtype=like.dtype) * (LEVELS - 1) / INNER_BINS
        first = F.pad(1 + inner.ceil(), (1, 0))
        return first, F.pad(first, (0, 1), value=LEVELS + 1.0).diff()

    @staticmethod
    def log_bins(*out: Tensor) -> Tensor:
        """log softmax of the outputs, (..., 16, P)."""
        return torch.stack(out, -2).log_softmax(-2)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        return self.log_pmf((x * LEVELS).round(), *out)

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        log_p, chosen, (_, width) = self.log_bins(*out), self.bin_of(v), self.bounds(out[0])
        shape = torch.broadcast_shapes(v.shape, out[0].shape)
        index = chosen.expand(shape)[..., None, :]
        log_bin = log_p.expand(*shape[:-1], *log_p.shape[-2:]).gather(-2, index).squeeze(-2)
        return (log_bin - width.log()[chosen]).sum(-1)

    def product(self, *out: Tensor) -> None:
        return None

    def mean(self, *out: Tensor) -> Tensor:
        """The bins' probabilities times their middle levels."""
        first, width = self.bounds(out[0])
        middle = (first + (width - 1) / 2) / LEVELS
        return (self.log_bins(*out).exp() * middle[:, None]).sum(-2)

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        first, width = self.bounds(out[0])
        below = self.log_bins(*out)[..., :-1, :].exp().cumsum(-2)
        chosen = (uniform(out[0], generator).unsqueeze(-2) > below).sum(-2)
        return (first[chosen] + (uniform(out[0], generator) * width[chosen]).floor()) / LEVELS

    def noise_scale(self, *out: Tensor) -> None:
        return None
