"""Optimizers as named updates of tensors, with a learning rate and a weight decay of its own for every lane.

To add one, write a frozen dataclass that satisfies `Optimizer` and a line in catalog.py.

Shapes: S lanes, T steps, F factors; parameters, gradients and slots are (S, ...).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from harness.kernels.matmul import AdamSettings
from harness.kernels.torch_internals import adam_of_many, fused_adam


class Rates(NamedTuple):
    """The numbers of one step, per lane.

    Attributes:
        learning_rate: (S,).
        weight_decay: (S,).
        factors: the F factors that the optimizer computed for this step, (S,) each.
    """

    learning_rate: Tensor
    weight_decay: Tensor
    factors: tuple[Tensor, ...]


@dataclass
class OptimizerState:
    """The state of an optimizer between steps.

    Attributes:
        slots: lists of tensors by the optimizer's name for them, one tensor per parameter and shaped like it; behind them those of
            `harness.training.extras`.
        step: the number of steps taken, a scalar on the parameters' device.
    """

    slots: dict[str, list[Tensor]]
    step: Tensor

    def of(self, optimizer: "Optimizer") -> list[list[Tensor]]:
        """Return the slots that are the optimizer's own, in its order."""
        return [self.slots[name] for name in optimizer.slots]


class Optimizer(Protocol):
    """A rule by which parameters change at a step. Implementations are frozen dataclasses; none inherits from another."""

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the tensors that are kept for every parameter, which are zero at the start."""

    @property
    def kernel(self) -> AdamSettings | None:
        """The settings with which harness.kernels fuses this update with a matrix product; None if it cannot."""

    def factors(self, step: Tensor, learning_rate: Tensor) -> Tensor:
        """Return the factors that depend on the step alone, (T, F, S), for steps (T,) counted from 1 and learning rates (T, S)."""

    def apply(self, p: Tensor, g: Tensor, slots: Sequence[Tensor], rates: Rates) -> None:
        """Change parameter `p` with gradient `g` and its slots in place, for all lanes, by operations that can be traced."""

    def apply_many(
        self, params: Sequence[Tensor], grads: Sequence[Tensor], slots: Sequence[Sequence[Tensor]], rates: Rates
    ) -> None:
        """Change parameters of equal numbers of dimensions as `apply` does, by operations that a GPU's compiler joins.

        `slots` has the tensors of all parameters for each slot.
        """

    def update(self, params: Sequence[Tensor], grads: Sequence[Tensor], state: OptimizerState, rates: Rates) -> None:
        """Take one step, outside of a trace, of all parameters in place, and count it."""


def start(optimizer: Optimizer, params: Sequence[Tensor], more: Sequence[str] = ()) -> OptimizerState:
    """Return an optimizer's state before the first step: zero slots for every parameter, those of the names `more` too."""
    zeros = {name: [torch.zeros_like(p) for p in params] for name in (*optimizer.slots, *more)}
    return OptimizerState(zeros, torch.zeros((), device=params[0].device))


def _apply_each(
    optimizer: Optimizer, params: Sequence[Tensor], grads: Sequence[Tensor], slots: Sequence[Sequence[Tensor]], rates: Rates
) -> None:
    """Apply the optimizer to every parameter in place, by single operations."""
    for p, g, *own_slots in zip(params, grads, *slots, strict=True):
        optimizer.apply(p, g, own_slots, rates)


def _per_lane(values: Tensor, like: Tensor) -> Tensor:
    """Return values (S,) viewed so that they broadcast to `like`, (S, ...)."""
    return values.view((-1,) + (1,) * (like.dim() - 1))


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980).

    If `decoupled`, AdamW (Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101): the decay acts on the parameter, not
    through the gradient. On a CPU, outside of a trace, `update` calls torch's own fused kernel lane by lane (measured 0.43 ms
    against 2.3 ms by operations on the reference model, one thread). Both ways equal torch.optim.Adam and AdamW; a test holds
    them to it.

    Attributes:
        decoupled: True for AdamW.
        beta1: the decay of the mean of the gradients.
        beta2: the decay of the mean of the squared gradients.
        eps: the term that keeps the denominator from zero.
        slots: `mean` and `square`, the running means of the gradients and of their squares.
    """

    decoupled: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    slots: tuple[str, ...] = ("mean", "square")

    @property
    def kernel(self) -> AdamSettings:
        """The settings of this optimizer for the kernel that is fused with the matrix products."""
        return AdamSettings(self.decoupled, self.beta1, self.beta2, self.eps)

    def factors(self, step: Tensor, learning_rate: Tensor) -> Tensor:
        """Return learning rate / (1 - beta1^t) and 1 / sqrt(1 - beta2^t), which undo the bias of the moments, (T, 2, S)."""
        t = step.double()[:, None]
        rate = (learning_rate / (1 - self.beta1**t)).float()
        return torch.stack((rate, (1 - self.beta2**t).rsqrt().float().expand_as(rate)), 1)

    def apply(self, p: Tensor, g: Tensor, slots: Sequence[Tensor], rates: Rates) -> None:
        """Change a parameter and its moments in place."""
        mean, square = slots
        rate, spread = (_per_lane(f, p) for f in rates.factors)
        decay = _per_lane(rates.weight_decay, p)
        if self.decoupled:
            p.mul_(1 - _per_lane(rates.learning_rate, p) * decay)
        else:
            g = g + decay * p
        mean.lerp_(g, 1 - self.beta1)
        square.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        p.sub_(rate * mean / (square.sqrt() * spread + self.eps))

    def apply_many(
        self, params: Sequence[Tensor], grads: Sequence[Tensor], slots: Sequence[Sequence[Tensor]], rates: Rates
    ) -> None:
        """Change parameters and their moments in place, by operations on lists."""
        mean, square = slots
        rate, spread = (_per_lane(f, params[0]) for f in rates.factors)
        adam_of_many(
            list(params),
            list(grads),
            list(mean),
            list(square),
            settings=self.kernel,
            learning_rate=_per_lane(rates.learning_rate, params[0]),
            weight_decay=_per_lane(rates.weight_decay, params[0]),
            rate=rate,
            spread=spread,
        )

    @torch.no_grad()
    def update(self, params: Sequence[Tensor], grads: Sequence[Tensor], state: OptimizerState, rates: Rates) -> None:
        """Take one step, outside of a trace, of all parameters in place, and count it."""
        state.step += 1
        if state.step.device.type != "cpu":
            _apply_each(self, params, grads, state.of(self), rates)
            return
        # That kernel reads gradients as they lie in memory, whatever their strides: those of stacked linear layers are transposed.
        tensors = (params, [g.contiguous() for g in grads], *state.of(self))
        for lane, (rate, decay) in enumerate(zip(rates.learning_rate.tolist(), rates.weight_decay.tolist(), strict=True)):
            of_lane = [[t[lane] for t in group] for group in tensors]
            fused_adam(*of_lane, step=state.step, settings=self.kernel, learning_rate=rate, weight_decay=decay)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum (Polyak, 1964, https://doi.org/10.1016/0041-5553(64)90137-5), as torch.optim.SGD.

    v <- momentum v + g + decay p and p <- p - learning rate v, with one slot, `velocity`.
    """

    momentum: float = 0.9
    slots: tuple[str, ...] = ("velocity",)
    kernel: None = None

    def factors(self, step: Tensor, learning_rate: Tensor) -> Tensor:
        """Return an empty tensor, (T, 0, S): the update does not depend on the number of the step."""
        return learning_rate.new_zeros(len(step), 0, learning_rate.shape[1])

    def apply(self, p: Tensor, g: Tensor, slots: Sequence[Tensor], rates: Rates) -> None:
        """Change a parameter and its velocity in place."""
        (velocity,) = slots
        velocity.mul_(self.momentum).add_(g + _per_lane(rates.weight_decay, p) * p)
        p.sub_(_per_lane(rates.learning_rate, p) * velocity)

    def apply_many(
        self, params: Sequence[Tensor], grads: Sequence[Tensor], slots: Sequence[Sequence[Tensor]], rates: Rates
    ) -> None:
        """Change parameters and their velocities in place, one after another."""
        _apply_each(self, params, grads, slots, rates)

    @torch.no_grad()
    def update(self, params: Sequence[Tensor], grads: Sequence[Tensor], state: OptimizerState, rates: Rates) -> None:
        """Take one step, outside of a trace, of all parameters in place, and count it."""
        state.step += 1
        _apply_each(self, params, grads, state.of(self), rates)
