"""A likelihood with heavy tails: Student-t around each pixel, with a scale for every pixel."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StudentT:
    """Student-t with `df` degrees of freedom, centre sigmoid(a) and scale 1/510 + exp(b)/4; the decoder gives a and b, (..., P)."""

    df: float = 3.0
    outputs: int = 2  # of the decoder, per pixel
    scale: str = "density on v/255"  # what log_prob is a probability of

    def spread(self, b: Tensor) -> Tensor:
        return 1 / 510 + b.clamp(max=7).exp() / 4

    def log_prob(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        n, scale = self.df, self.spread(b)
        log_norm = math.lgamma(n / 2) - math.lgamma((n + 1) / 2) + 0.5 * math.log(n * math.pi)
        return -(log_norm + scale.log() + (n + 1) / 2 * torch.log1p(((x - a.sigmoid()) / scale).square() / n)).sum(-1)

    def mean(self, a: Tensor, b: Tensor) -> Tensor:
        return a.sigmoid()

    def sample(self, generator: torch.Generator, a: Tensor, b: Tensor) -> Tensor:
        """Bailey's polar method (1994, https://doi.org/10.1090/S0025-5718-1994-1203736-9), exact for any df."""
        u, v = (torch.rand(a.shape, generator=generator, device=a.device, dtype=a.dtype) for _ in range(2))
        radius = (self.df * ((1 - u) ** (-2 / self.df) - 1)).sqrt()
        return a.sigmoid() + self.spread(b) * radius * torch.cos(2 * math.pi * v)
