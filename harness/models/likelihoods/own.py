"""A likelihood of the user's own, which has the members that a user must know, as one that has them all. Shapes: P pixels."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.models.likelihoods.protocol import MAX_LEVEL, ExponentialFamily, Noise


@dataclass(frozen=True)
class OwnLikelihood:
    """A user's likelihood; what it does not have is left out of scores and figures.

    It must have `outputs`, `scale`, `log_prob`, `mean` and `sample`. It may have any other member of `Likelihood`: by default x is
    v / 255, nothing is learned beside the decoder's outputs, and there is neither a pmf of grey levels nor a scale of the noise.

    Attributes:
        own: The user's object, whose methods take and give the shapes of `Likelihood`.
    """

    own: Any

    @property
    def outputs(self) -> int:
        """The number of decoder outputs per pixel."""
        return int(self.own.outputs)

    @property
    def shared(self) -> int:
        """The number of learned scalars; 0 unless the object says otherwise."""
        return int(getattr(self.own, "shared", 0))

    @property
    def noise(self) -> Noise:
        """The noise that `observe` consumes; none unless the object says otherwise."""
        noise: Noise = getattr(self.own, "noise", "none")
        return noise

    @property
    def scale_floor(self) -> float | None:
        """The lower bound of a learned scale; None unless the object says otherwise."""
        floor: float | None = getattr(self.own, "scale_floor", None)
        return floor

    @property
    def channels(self) -> int | None:
        """The number of channels of the images that it is for; any unless the object says otherwise."""
        channels: int | None = getattr(self.own, "channels", None)
        return channels

    @property
    def kernel(self) -> None:
        """None: the native kernels do not know it."""
        return None

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """Return x (..., P) from grey levels and noise; v / 255 unless the object says otherwise."""
        observe = getattr(self.own, "observe", None)
        x: Tensor = v / MAX_LEVEL if observe is None else observe(v, u)
        return x

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return log p(x|z) in nats, summed over pixels: (..., P) to (...)."""
        log_p: Tensor = self.own.log_prob(x, *out)
        return log_p

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor | None:
        """Return log P(v|z) of grey levels in nats: (..., P) to (...); None if the object has no such pmf."""
        log_p: Tensor | None = self._optional("log_pmf", v, *out)
        return log_p

    def exponential_family(self, *out: Tensor) -> ExponentialFamily | None:
        """Return log p(x|z) as an exponential family, if the object does."""
        family: ExponentialFamily | None = self._optional("exponential_family", *out)
        return family

    def mean(self, *out: Tensor) -> Tensor:
        """Return E[x|z], (..., P) on [0, 1]."""
        mean: Tensor = self.own.mean(*out)
        return mean

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """Return one draw of x given z, (..., P)."""
        draw: Tensor = self.own.sample(generator, *out)
        return draw

    def noise_scale(self, *out: Tensor) -> Tensor | None:
        """Return the scale of the pixel noise, if the object does."""
        scale: Tensor | None = self._optional("noise_scale", *out)
        return scale

    def misfit(self, x: Tensor, *out: Tensor) -> Tensor | None:
        """Return what has mean 1 if the scale of the noise fits, if the object does."""
        misfit: Tensor | None = self._optional("misfit", x, *out)
        return misfit

    def _optional(self, name: str, *tensors: Tensor) -> Any:
        """Return what a method of the object returns, or None if it has no such method."""
        method = getattr(self.own, name, None)
        return None if method is None else method(*tensors)
