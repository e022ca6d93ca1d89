"""What a step does around the optimizer's update: gradients are clipped before it, an average of the weights follows after it.

Shapes: S lanes, T steps; parameters, gradients and averages are (S, ...).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.spec import TrialSpec

AVERAGE = "average"  # the slot of the averaged weights, beside the optimizer's own


class Extras(NamedTuple):
    """What a program does around the update for at least one of its lanes: part of its structure, so that others do not pay.

    The numbers per lane come as rows of a chunk, behind the optimizer's factors.

    Attributes:
        clips: True if a lane clips its gradients.
        averages: True if a lane keeps an average of its weights.
    """

    clips: bool = False
    averages: bool = False

    @classmethod
    def of(cls, lanes: Sequence[TrialSpec]) -> "Extras":
        """Return what these lanes take."""
        return cls(any(s.clip_norm for s in lanes), any(s.ema_decay for s in lanes))

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the tensors that are kept for every parameter."""
        return (AVERAGE,) if self.averages else ()

    def factors(self, lanes: Sequence[TrialSpec], steps: Tensor) -> Tensor:
        """Return the limits of the norm and the shares of the average that `split` takes apart, (T, E, S), for steps from 1 on."""
        limits = torch.tensor([s.clip_norm or torch.inf for s in lanes]).expand(len(steps), -1)
        rows = ([limits] if self.clips else []) + ([shares(lanes, steps)] if self.averages else [])
        return torch.stack(rows, 1) if rows else limits[:, None][:, :0]

    def split(self, factors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor | None, Tensor | None]:
        """Return the optimizer's factors of a step, the limit of each lane's norm and the share of its weights in their average."""
        own = len(factors) - self.clips - self.averages
        return tuple(factors[:own]), factors[own] if self.clips else None, factors[-1] if self.averages else None


def shares(lanes: Sequence[TrialSpec], steps: Tensor) -> Tensor:
    """Return the share of a step's weights in their average after it, (T, S): (1 - d) / (1 - d^t) for step t and `ema_decay` d.

    With it the average is the mean of the weights after all steps so far, weighed by d^(age in steps), divided by the sum of these:
    the exponential moving average from 0 with its bias corrected (Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980, section 7.2),
    which the initial weights have no part in. d = 1 is its limit 1/t, the plain mean (Polyak & Juditsky, 1992,
    https://doi.org/10.1137/0330046). The share of a lane without an average is 1: there it is the weights themselves.
    """
    t = steps.double()[:, None]
    decay = torch.tensor([s.ema_decay for s in lanes], dtype=torch.float64)
    return torch.where(decay < 1, (1 - decay) / (1 - decay**t), 1 / t).float()


def norms(grads: Sequence[Tensor]) -> Tensor:
    """Return the norm of all gradients of each lane, (S,)."""
    return torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()


def clipped(grads: Sequence[Tensor], limit: Tensor | None) -> Sequence[Tensor]:
    """Return the gradients, scaled in each lane whose norm of all of them is above its limit (S,), to that; as they are if None.

    As torch.nn.utils.clip_grad_norm_, which divides by the norm plus 1e-6 (Pascanu et al., 2013, https://arxiv.org/abs/1211.5063).
    """
    if limit is None:
        return grads
    scale = torch.where(limit.isinf(), 1.0, limit / (norms(grads) + 1e-6)).clamp(max=1)
    return [g * scale.view((-1,) + (1,) * (g.dim() - 1)) for g in grads]


@torch.no_grad()
def follow(averages: Sequence[Tensor], params: Sequence[Tensor], share: Tensor | None) -> None:
    """Move the averages towards the parameters by each lane's share (S,), in place; there are none if it is None."""
    if share is not None:
        for average, p in zip(averages, params, strict=True):
            average.lerp_(p, share.view((-1,) + (1,) * (p.dim() - 1)))
