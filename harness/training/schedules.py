"""Learning-rate schedules by name: factors on a trial's initial learning rate, as functions of its progress.

To add one, write a function of `Progress` and of the factor to end at, and add a line to catalog.py.

Shapes: S lanes, T steps of a chunk.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness import catalog
from harness.spec import TrialSpec


class Progress(NamedTuple):
    """The progress of a trial in its training.

    Attributes:
        epoch: the epoch, counted from 0.
        epochs: the number of epochs in all.
        step: the numbers of the steps, (T, 1), counted from 0 over all epochs.
        steps: the number of steps in all.
    """

    epoch: int
    epochs: int
    step: Tensor
    steps: int


Schedule = Callable[[Progress, Tensor], Tensor]  # (progress, factors to end at (S,)) -> factors that broadcast to (T, S)


def constant(at: Progress, end: Tensor) -> Tensor:
    """Return 1: the learning rate stays as it is."""
    return torch.ones(())


def exponential(at: Progress, end: Tensor) -> Tensor:
    """Return end^(epoch / (epochs - 1)): from epoch to epoch the factor falls by the same ratio, down to `end` in the last one."""
    return end ** (at.epoch / max(1, at.epochs - 1))


def cosine(at: Progress, end: Tensor) -> Tensor:
    """Return end + (1 - end) (1 + cos(pi step / (steps - 1))) / 2, (T, S), which changes with every step.

    Loshchilov & Hutter, 2017 (https://arxiv.org/abs/1608.03983), without restarts.
    """
    turn = torch.cos(math.pi * at.step.double() / max(1, at.steps - 1))
    return (end + (1 - end) * (1 + turn) / 2).float()


def learning_rates(lanes: Sequence[TrialSpec], steps: range, per_epoch: int, epoch: int) -> Tensor:
    """Return every lane's learning rate at these steps of an epoch, (T, S); lanes train for the same number of epochs.

    Over the first `learning_rate_warmup` epochs the schedule's rate is scaled by a factor that rises linearly to 1. `steps` are
    numbered within the epoch, and `per_epoch` counts the steps of an epoch.
    """
    number = epoch * per_epoch + torch.arange(steps.start, steps.stop)[:, None]
    first, end, warmup = (
        torch.tensor([getattr(s, field) for s in lanes])
        for field in ("learning_rate", "learning_rate_decay", "learning_rate_warmup")
    )
    at = Progress(epoch, lanes[0].epochs, number, lanes[0].epochs * per_epoch)
    names = [s.learning_rate_schedule for s in lanes]
    rates = torch.empty(len(steps), len(lanes))
    for name in set(names):
        schedule: Schedule = catalog.find("learning_rate_schedule", name)
        own = [lane for lane, other in enumerate(names) if other == name]
        rates[:, own] = first[own] * schedule(at, end[own])
    if warmup.any():
        rates *= torch.where(warmup > 0, (number + 1) / (warmup * per_epoch), 1.0).clamp(max=1)
    return rates
