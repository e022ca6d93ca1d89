"""The protocol of a reconstruction loss, and what several of them use. Shapes: P pixels; other dimensions broadcast."""

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from harness.models.likelihoods.heads import HeadKernel

MAX_LEVEL = 255  # of grey levels 0..255
SATURATED = 1e9  # sigmoid is exactly 1 here and its gradient exactly 0, in any float
Noise = Literal["none", "fresh", "frozen"]


class ExponentialFamily(NamedTuple):
    """The form log p(x|z) = sum_p x eta - log_norm - precision/2 sum_p x^2, in nats.

    With it, log p(x|z) of all pairs of images and latents is one matrix product; log_norm is -log p(0|z).

    Attributes:
        eta: Natural parameter, (..., P).
        precision: Factor of the quadratic term, broadcastable to (...).
    """

    eta: Tensor
    precision: Tensor


class Likelihood(Protocol):
    """The protocol of a reconstruction loss. Implementations are frozen dataclasses that do not inherit from each other."""

    @property
    def outputs(self) -> int:
        """The number of decoder outputs per pixel."""

    @property
    def shared(self) -> int:
        """The number of learned scalars that all pixels and images of a trial share."""

    @property
    def noise(self) -> Noise:
        """The noise that `observe` consumes: none; `fresh` at every use of an image in training; `frozen`, drawn once for all.

        x of frozen noise must be 0 or 1. An evaluation draws once in either case.
        """

    @property
    def scale_floor(self) -> float | None:
        """The lower bound of a learned `noise_scale`; None without one."""

    @property
    def channels(self) -> int | None:
        """The number of channels of the images that it is for; None if values depend on no other, whatever the channels."""

    @property
    def kernel(self) -> HeadKernel | None:
        """How the native kernels compute it; None if they do not. A gradient that they do not compute comes from autograd."""

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """Return x (..., P), the data as the model sees and scores it, from grey levels v (..., P) in 0..255 and noise u."""

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return log p(x|z) in nats, summed over pixels: (..., P) to (...)."""

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor | None:
        """Return log P(v|z) of grey levels v in 0..255, in nats, summed over pixels: (..., P) to (...). None without such a pmf."""

    def exponential_family(self, *out: Tensor) -> ExponentialFamily | None:
        """Return log p(x|z) as an exponential family with statistics x and sum_p x^2, or None if it is not one."""

    def mean(self, *out: Tensor) -> Tensor:
        """Return E[x|z], (..., P) on [0, 1]: the image that is drawn and whose squared error is measured."""

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """Return one draw of x given z, (..., P)."""

    def noise_scale(self, *out: Tensor) -> Tensor | None:
        """Return the standard deviation (or scale) of the pixel noise on the [0, 1] axis, or None if the model has none."""

    def misfit(self, x: Tensor, *out: Tensor) -> Tensor | None:
        """Return for every pixel, (..., P), what has mean 1 if the scale of the noise fits the errors; None if no scale can."""


def uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return uniform noise on [1e-7, 1 - 1e-7] with the shape, device and type of `like`."""
    u = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    return u.clamp_(1e-7, 1 - 1e-7)
