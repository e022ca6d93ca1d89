"""What a reconstruction loss must answer, and what several of them use. Shapes: P pixels; the rest broadcasts."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

LEVELS = 255


class ExponentialFamily(NamedTuple):
    """The exponential family form log p(x|z) = sum_p x eta - log_norm - precision/2 sum_p x^2.

    eta (..., P), log_norm (...), precision broadcastable to (...): all pairs of images and latents are one matrix product.
    """

    eta: Tensor
    log_norm: Tensor
    precision: Tensor


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

    @property
    def scale_floor(self) -> float | None:
        """The lower bound of `noise_scale` where the model has one."""

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """The data as the model sees and scores it: grey levels v (..., P) in 0..255 and noise u to x (..., P)."""

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """log p(x|z) in nats, summed over pixels: (..., P) to (...)."""

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor | None:
        """log P(v|z) in nats, summed over pixels, of grey levels v in 0..255: (..., P) to (...). None without such a pmf."""

    def product(self, *out: Tensor) -> ExponentialFamily | None:
        """log p(x|z) as an exponential family with statistics x and sum_p x^2; None where it is not one."""

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
