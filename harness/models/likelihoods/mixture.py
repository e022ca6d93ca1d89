"""A mixture of discretized logistics whose channels depend on each other. Shapes: K components, C channels, N = P / C pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from harness.models.likelihoods.heads import Head, HeadKernel, Observation
from harness.models.likelihoods.logistic import (
    LOG_SCALE_CEILING,
    LOG_SCALE_FLOOR,
    LOG_SCALE_START,
    centre_of,
    clipped_mean,
    log_level,
    log_scale_of,
    open_ends,
    rounded_draw,
)
from harness.models.likelihoods.protocol import MAX_LEVEL, Noise, uniform

PARTS = 4  # of a channel's probability, over which the mean of the channels that depend on it is averaged
FARTHEST = 1e-6  # from 0 and 1 that a probability is kept, where its logarithm has a finite gradient in float32


class _Component(NamedTuple):
    """The logistics of one component of the mixture, by channel, (..., N) each.

    Attributes:
        centre: m of each channel without what the channels before it add.
        log_scale: log s of each channel.
        coupling: The coefficients of a pixel, those of channel c on channels 0..c-1 from c (c - 1) / 2 on.
    """

    centre: Sequence[Tensor]
    log_scale: Sequence[Tensor]
    coupling: Sequence[Tensor]

    def centre_given(self, channel: int, before: Sequence[Tensor]) -> Tensor:
        """Return m of a channel given the values x of the channels before it, (..., N) each."""
        first = channel * (channel - 1) // 2
        return self.centre[channel] + sum(self.coupling[first + j] * (x - 0.5) for j, x in enumerate(before))


@dataclass(frozen=True)
class LogisticMixture:
    """A pmf on 0..255: a mixture of `DiscretizedLogistic`s for each pixel, whose channels depend on each other linearly.

    It is the output layer of PixelCNN++ (Salimans et al., 2017, https://arxiv.org/abs/1701.05517):

        P(r, g, b) = sum_k w_k L(r; m_r, s_r) L(g; m_g + t_0 (r - 1/2), s_g) L(b; m_b + t_1 (r - 1/2) + t_2 (g - 1/2), s_b)

    with r, g, b = v/255, and m, s, t of component k; L is `DiscretizedLogistic`'s pmf, open-ended at 0 and 255. As there, m = a +
    1/2, log s is an output minus 2, clamped to [-7, 7], t is the tanh of an output, and w the softmax of logits that the channels
    of a pixel share; with one component and one channel it is `DiscretizedLogistic`. The decoder's outputs come as K logits, K a,
    K log s and, of three channels, K raw t, one per value: t_0, t_1, t_2 stand where r, g, b do, and a logit is the mean of three.

    Components and channels are computed one after another, so that nothing but one logarithm each is kept of all of them.

    Attributes:
        components: K. A step costs in proportion, and so does the decoder's last layer: 10 as in that paper take twice the time of
            5.
        channels: C, 1 or 3. An image is flat, channel by channel.
    """

    components: int = 5
    channels: int = 1
    shared: int = 0
    noise: Noise = "none"
    scale_floor: float | None = None

    @property
    def outputs(self) -> int:
        """The number of decoder outputs per value: 3 K, or 4 K if channels depend on each other."""
        return self.components * (3 if self.channels == 1 else 4)

    @property
    def kernel(self) -> HeadKernel:
        """How it is computed natively, but for its gradient."""
        settings = (self.components, self.channels, LOG_SCALE_START, LOG_SCALE_FLOOR, LOG_SCALE_CEILING)
        return HeadKernel(Head.LOGISTIC_MIXTURE, settings, Observation.GREY, gradient=False)

    def observe(self, v: Tensor, u: Tensor | float) -> Tensor:
        """Return x = v / 255, (..., P); u is not used."""
        return v / MAX_LEVEL

    def _by_channel(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return values of flat images by channel: (..., P) to C of (..., N)."""
        return tuple(values.unflatten(-1, (self.channels, -1)).unbind(-2))

    def _log_weights(self, out: Sequence[Tensor]) -> Tensor:
        """Return the log weight of each component in each pixel, (K, ..., N)."""
        logits: Tensor = torch.stack(list(out[: self.components])).unflatten(-1, (self.channels, -1))
        return logits.mean(-2).log_softmax(0)

    def _component(self, k: int, out: Sequence[Tensor]) -> _Component:
        """Return the logistics of component k of the decoder's outputs, (..., P) each."""
        centre, log_scale, *raw = (self._by_channel(o) for o in out[self.components + k :: self.components])
        return _Component(
            centre=[centre_of(a) for a in centre],
            log_scale=[log_scale_of(b) for b in log_scale],
            coupling=[t.tanh() for of in raw for t in of],
        )

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        """Return sum over pixels of log P(255 x) in nats: (..., P) to (...)."""
        values, first, last = (self._by_channel(t) for t in (x, *open_ends(x)))
        joint = []
        for k, log_p in enumerate(self._log_weights(out)):
            of = self._component(k, out)
            for c in range(self.channels):
                distance = values[c] - of.centre_given(c, values[:c])
                log_p = log_p + log_level(distance, (-of.log_scale[c]).exp(), first[c], last[c])
            joint.append(log_p)
        return torch.stack(joint).logsumexp(0).sum(-1)

    def log_pmf(self, v: Tensor, *out: Tensor) -> Tensor:
        """Return sum over pixels of log P(v) in nats: (..., P) to (...)."""
        return self.log_prob(v / MAX_LEVEL, *out)

    def exponential_family(self, *out: Tensor) -> None:
        """Return None: log p(x|z) is not affine in x and x^2."""
        return None

    def mean(self, *out: Tensor) -> Tensor:
        """Return the mean over components of the means of logistics clipped to [0, 1], (..., P).

        The first channel's is the pmf's to within half a level, as `DiscretizedLogistic`'s. The others' are averaged over four
        equally likely parts of each channel before them, taken at their means: exact where nothing is clipped, since then they are
        linear, and to within two levels for outputs of the size of 1.
        """
        mean = torch.zeros_like(out[0])
        for k, weight in enumerate(self._log_weights(out).exp()):
            by_channel = torch.stack(_means(self._component(k, out), self.channels), -2)
            mean = mean + (weight.unsqueeze(-2) * by_channel).flatten(-2)
        return mean.clamp(0, 1)

    def sample(self, generator: torch.Generator, *out: Tensor) -> Tensor:
        """Return a draw of v / 255, (..., P): first each pixel's component, then its channels one after another."""
        weights = self._log_weights(out).exp()
        chosen = (uniform(weights[0], generator) > weights.cumsum(0)[:-1]).sum(0, keepdim=True)
        parts = [self._component(k, out) for k in range(self.components)]

        def picked(of_all: Sequence[Sequence[Tensor]]) -> list[Tensor]:
            """Return what each pixel's component has, by channel."""
            return [torch.stack(of_channel).gather(0, chosen)[0] for of_channel in zip(*of_all, strict=True)]

        of = _Component(*(picked(of_all) for of_all in zip(*parts, strict=True)))
        values: list[Tensor] = []
        for c in range(self.channels):
            values.append(rounded_draw(of.centre_given(c, values), of.log_scale[c].exp(), generator))
        return torch.stack(values, -2).flatten(-2)

    def noise_scale(self, *out: Tensor) -> None:
        """Return None: components have scales, the pixel has no single one."""
        return None

    def misfit(self, x: Tensor, *out: Tensor) -> None:
        """Return None: there is no one scale that could fit."""
        return None


def _means(of: _Component, channels: int) -> list[Tensor]:
    """Return the mean of each channel under one component, (..., N) each."""
    means, before = [], list[Tensor]()
    for c in range(channels):
        centre, scale = of.centre_given(c, before), of.log_scale[c].exp()
        mean = clipped_mean(centre, scale)
        if c + 1 < channels:  # in front come to stand the parts of this channel, then of the one before it
            before.append(_means_of_parts(centre, scale))
        for _ in range(c):
            mean = mean.mean(0)
        means.append(mean)
    return means


def _means_of_parts(centre: Tensor, scale: Tensor) -> Tensor:
    """Return the mean of a logistic clipped to [0, 1] in each of four equally likely parts: (..., N) to (4, ..., N).

    The quantile of u is m + s logit(u), whose integral from u to w is m (w - u) + s (h(u) - h(w)) with the entropy h(u) = -u log u
    - (1 - u) log(1 - u). Those u whose quantile is below 0 add nothing, those whose quantile is above 1 add their number.
    """
    low, high = (end.sigmoid().clamp(FARTHEST, 1 - FARTHEST) for end in (-centre / scale, (1 - centre) / scale))
    u = (torch.arange(PARTS + 1, device=centre.device, dtype=centre.dtype) / PARTS).view(-1, *[1] * centre.dim())
    inner = torch.minimum(torch.maximum(u, low), high)
    integral = centre * (inner - low) + scale * (_entropy(low) - _entropy(inner)) + (u - high).relu()
    return (integral.diff(dim=0) * PARTS).clamp(0, 1)


def _entropy(u: Tensor) -> Tensor:
    """Return -u log u - (1 - u) log(1 - u), elementwise."""
    return -(u * u.log() + (1 - u) * torch.log1p(-u))
