"""Learning-rate schedules by name: factors on a trial's initial learning rate, as functions of its progress.

To add one, write a function of `Progress` and of the factor to end at, and add a line to `SCHEDULES` and its name to
`CHOICES` (spec.py).

Shapes: S lanes, T steps of a chunk.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.spec import TrialSpec


class Progress(NamedTuple):
    """The progress of a trial in its training.

    Attributes:
        epoch: the epoch, counted from 0.
        epochs: the number of epochs in all.
        step: the numbers of the steps, (T,), counted from 0 over all epochs.
        steps: the number of steps in all.
    """

    epoch: int
    epochs: int
    step: Tensor
    steps: int


Schedule = Callable[[Progress, Tensor], Tensor]  # (progress, factor to end at) -> factor, () or (T,)


def constant(at: Progress, end: Tensor) -> Tensor:
    """Return 1: the learning rate stays as it is."""
    return torch.ones(())


def exponential(at: Progress, end: Tensor) -> Tensor:
    """Return end^(epoch / (epochs - 1)): from epoch to epoch the factor falls by the same ratio, down to `end` in the last one."""
    return end ** (at.epoch / max(1, at.epochs - 1))


def cosine(at: Progress, end: Tensor) -> Tensor:
    """Return end + (1 - end) (1 + cos(pi step / (steps - 1))) / 2, (T,), which changes with every step.

    Loshchilov & Hutter, 2017 (https://arxiv.org/abs/1608.03983), without restarts.
    """
    turn = torch.cos(math.pi * at.step.double() / max(1, at.steps - 1))
    return (end + (1 - end) * (1 + turn) / 2).float()


SCHEDULES: Mapping[str, Schedule] = {"exponential": exponential, "constant": constant, "cosine": cosine}


def learning_rates(lanes: Sequence[TrialSpec], steps: range, per_epoch: int, epoch: int) -> Tensor:
    """Return every lane's learning rate at these steps of an epoch, (T, S).

    Over the first `learning_rate_warmup` epochs the schedule's rate is scaled by a factor that rises linearly to 1. `steps` are
    numbered within the epoch, and `per_epoch` counts the steps of an epoch.
    """
    number = epoch * per_epoch + torch.arange(steps.start, steps.stop)
    rates = torch.empty(len(steps), len(lanes))
    for lane, spec in enumerate(lanes):
        at = Progress(epoch, spec.epochs, number, spec.epochs * per_epoch)
        factor = SCHEDULES[spec.learning_rate_schedule](at, torch.tensor(spec.learning_rate_decay))
        rates[:, lane] = torch.tensor(spec.learning_rate) * factor
        if spec.learning_rate_warmup > 0:
            rates[:, lane] *= ((number + 1) / (spec.learning_rate_warmup * per_epoch)).clamp(max=1)
    return rates
