"""Likelihoods that are themselves a pmf on grey levels 0..255. They observe x = v/255 and recover v by rounding 255 x."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.models.likelihoods.heads import Head, HeadKernel, Observation
from harness.models.likelihoods.protocol import MAX_LEVEL, Noise, uniform

LOG_SHAPE_BOUND = 10.0
INNER_BINS = 14


@dataclass(frozen=True)
class BetaBinomial:
    """Beta-binomial on 0..255: v ~ Binomial(255, p) with p ~ Beta(alpha, beta), one pair (alpha, beta) per pixel.

    P(v) = C(255, v) B(v + alpha, 255 - v + beta) / B(alpha, beta), as in BB-ANS (Townsend et al., 2019,
    https://arxiv.org/abs/1901.04866). The decoder gives log alpha and log beta. They are clamped at +-10, because exp overflows and
    little is gained beyond: at the bound log P(0) is -5e-7, and the variance is within 0.6 % of the binomial's, its lower limit.
    The terms reach 4e5 and cancel, so they are float64 whatever the input: float32 would be off by up to 0.06 nats a pixel.
    """

    outputs: int = 2
    shared: int = 0
    noise: Noise = "none"
    scale_floor: float | None = None
    channels: int | None = None
    kernel: None = None

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """Return x = v / 255, (..., P); u is not used."""
        return v / MAX_LEVEL

    @staticmethod
    def shapes(*out: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and beta, (..., P) each, in float64."""
        alpha, beta = (o.double().clamp(-LOG_SHAPE_BOUND, LOG_SHAPE_BOUND).exp() for o in out)
        return alpha, beta

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return `log_pmf` of the grey levels 255 x: (..., P) to (...)."""
        return self.log_pmf((x * MAX_LEVEL).round(), *out)

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        """Return sum_p log [C(255, v) B(v + alpha, 255 - v + beta) / B(alpha, beta)] in nats: (..., P) to (...)."""
        alpha, beta = self.shapes(*out)
        black, white = MAX_LEVEL - v.double(), v.double()
        choose = math.lgamma(MAX_LEVEL + 1) - torch.lgamma(white + 1) - torch.lgamma(black + 1)
        return (choose + log_beta(white + alpha, black + beta) - log_beta(alpha, beta)).sum(-1).to(v.dtype)

    def exponential_family(self, *out: Tensor) -> None:
        """Return None: log p(x|z) is not affine in x and x^2."""
        return None

    def mean(self, *out: Tensor) -> Tensor:
        """Return alpha / (alpha + beta), (..., P)."""
        a, b = (o.clamp(-LOG_SHAPE_BOUND, LOG_SHAPE_BOUND) for o in out)
        return (a - b).sigmoid()

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """Return a draw of v / 255, (..., P), by Polya's urn.

        v is the number of white balls in 255 draws; the next is white with probability
        (alpha + whites so far) / (alpha + beta + draws so far).
        """
        alpha, beta = self.shapes(*out)
        white = torch.zeros_like(alpha)
        for drawn in range(MAX_LEVEL):
            white += uniform(alpha, generator) < (alpha + white) / (alpha + beta + drawn)
        return (white / MAX_LEVEL).to(out[0].dtype)

    def noise_scale(self, *out: Tensor) -> None:
        """Return None: there is no scale of the noise apart from the mean."""
        return None

    def misfit(self, x: Tensor, *out: Tensor) -> None:
        """Return None: there is no scale of the noise apart from the mean."""
        return None


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """Return log B(a, b) of Euler's beta function, elementwise."""
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


@dataclass(frozen=True)
class Categorical:
    """A softmax over 16 bins of levels, uniform inside a bin: P(v) = softmax(l)[bin(v)] / width(bin(v)).

    Levels 0 and 255 have a bin each (81 % of MNIST), 1..254 share 14 bins of 18 or 19 levels. It is the output layer of PixelRNN
    (van den Oord et al., 2016, https://arxiv.org/abs/1601.06759) with fewer bins: 256 outputs a pixel would be 51 M weights behind
    256 hidden units.
    """

    outputs: int = INNER_BINS + 2
    shared: int = 0
    noise: Noise = "none"
    scale_floor: float | None = None
    channels: int | None = None

    @property
    def kernel(self) -> HeadKernel:
        """How it is computed natively."""
        return HeadKernel(Head.CATEGORICAL, (), Observation.GREY)

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """Return x = v / 255, (..., P); u is not used."""
        return v / MAX_LEVEL

    @staticmethod
    def bin_of(v: Tensor) -> Tensor:
        """Return bin(v), int64, of the same shape as v: 0 for level 0, 15 for level 255."""
        return 1 + torch.div((v.long() - 1) * INNER_BINS, MAX_LEVEL - 1, rounding_mode="floor")

    @staticmethod
    def bounds(like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first level of each bin and the number of its levels, (16,) each.

        They are computed on the device of `like`, so nothing is copied from the host, and in integers: a GPU divides by a number by
        multiplying with its inverse, after which a bin's first level may be one too high.
        """
        inner = torch.arange(INNER_BINS + 1, device=like.device) * (MAX_LEVEL - 1)
        up = 1 + torch.div(inner + INNER_BINS - 1, INNER_BINS, rounding_mode="floor")
        first = F.pad(up.to(like.dtype), (1, 0))
        return first, F.pad(first, (0, 1), value=MAX_LEVEL + 1.0).diff()

    @staticmethod
    def log_bins(*out: Tensor) -> Tensor:
        """Return the log softmax of the 16 outputs, (..., 16, P)."""
        return torch.stack(out, -2).log_softmax(-2)

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return `log_pmf` of the grey levels 255 x: (..., P) to (...)."""
        return self.log_pmf((x * MAX_LEVEL).round(), *out)

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        """Return sum_p log [softmax(l)[bin(v)] / width(bin(v))] in nats: (..., P) to (...)."""
        log_p, chosen, (_, width) = self.log_bins(*out), self.bin_of(v), self.bounds(out[0])
        shape = torch.broadcast_shapes(v.shape, out[0].shape)
        index = chosen.expand(shape)[..., None, :]
        log_bin = log_p.expand(*shape[:-1], *log_p.shape[-2:]).gather(-2, index).squeeze(-2)
        return (log_bin - width.log()[chosen]).sum(-1)

    def exponential_family(self, *out: Tensor) -> None:
        """Return None: log p(x|z) is not affine in x and x^2."""
        return None

    def mean(self, *out: Tensor) -> Tensor:
        """Return the sum over bins of their probability times their middle level / 255, (..., P)."""
        first, width = self.bounds(out[0])
        middle = (first + (width - 1) / 2) / MAX_LEVEL
        return (self.log_bins(*out).exp() * middle[:, None]).sum(-2)

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """Return a draw of v / 255, (..., P): first the bin, then a level of it."""
        first, width = self.bounds(out[0])
        below = self.log_bins(*out)[..., :-1, :].exp().cumsum(-2)
        chosen = (uniform(out[0], generator).unsqueeze(-2) > below).sum(-2)
        return (first[chosen] + (uniform(out[0], generator) * width[chosen]).floor()) / MAX_LEVEL

    def noise_scale(self, *out: Tensor) -> None:
        """Return None: there is no scale of the noise apart from the mean."""
        return None

    def misfit(self, x: Tensor, *out: Tensor) -> None:
        """Return None: there is no scale of the noise apart from the mean."""
        return None
