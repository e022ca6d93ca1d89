"""The state of trials between two epochs: all that each needs to go on from there, whichever trials train beside it then."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.models.vae import VAE, build, side_by_side
from harness.spec import TrialSpec
from harness.training.optimizers import OptimizerState

# The state of one trial: "epoch", and "parameters" and every slot of the optimizer as tensors by the parameter's name.
Snapshot = dict[str, Any]


def groups(vae: VAE, state: OptimizerState) -> dict[str, dict[str, Tensor]]:
    """Return all tensors that training changes, by group ("parameters" and the optimizer's slots) and parameter's name."""
    names = [name for name, _ in vae.named_parameters()]
    by_group: dict[str, Iterable[Tensor]] = {"parameters": vae.parameters(), **state.slots}
    return {group: dict(zip(names, tensors, strict=True)) for group, tensors in by_group.items()}


@torch.no_grad()
def extract(vae: VAE, lanes: Sequence[int], specs: Sequence[TrialSpec], image_shape: tuple[int, int, int]) -> VAE:
    """Return a copy of these lanes of a model as a model of its own. `specs` are the trials in them."""
    alone = side_by_side(specs, image_shape).to(next(vae.parameters()).device)
    parameters = dict(vae.named_parameters())
    for name, new in alone.named_parameters():
        new.copy_(parameters[name][list(lanes)][..., : new.shape[-1]])
    return alone


@dataclass(frozen=True)
class TrainingState:
    """The state of a cohort's lanes after some epochs: copies on the cohort's device, which further training does not change.

    Attributes:
        epoch: the number of epochs done.
        lanes: the trials in the lanes.
        image_shape: channels, height and width of an image.
        groups: the tensors by group and parameter's name (see `groups`), with the lanes as first dimension.
    """

    epoch: int
    lanes: tuple[TrialSpec, ...]
    image_shape: tuple[int, int, int]
    groups: dict[str, dict[str, Tensor]]

    @classmethod
    def of(
        cls, epoch: int, lanes: Sequence[TrialSpec], image_shape: tuple[int, int, int], vae: VAE, state: OptimizerState
    ) -> "TrainingState":
        """Return a copy of the state of these lanes, with the trials `lanes`, after `epoch` epochs."""
        copies = {g: {name: t.detach().clone() for name, t in tensors.items()} for g, tensors in groups(vae, state).items()}
        return cls(epoch, tuple(lanes), image_shape, copies)

    def snapshot(self, spec: TrialSpec) -> Snapshot:
        """Return the state of one trial as if it had trained alone: tensors of one lane on the CPU, and primitives."""
        lane = self.lanes.index(spec)
        names = [name for name, _ in build(spec, self.image_shape).named_parameters()]  # a mixed model may have more parameters
        own = slice(lane, lane + 1)
        return {"epoch": self.epoch} | {g: {n: t[n][own].to("cpu", copy=True) for n in names} for g, t in self.groups.items()}


@torch.no_grad()
def restore(vae: VAE, state: OptimizerState, snapshots: Sequence[Snapshot]) -> int:
    """Copy one snapshot into every lane and return their epoch. The caller sets the optimizer's step.

    Raises:
        ValueError: the snapshots are of different epochs.
    """
    epochs: list[int] = sorted({s["epoch"] for s in snapshots})
    if len(epochs) != 1:
        raise ValueError(f"snapshots of different epochs cannot train together: {epochs}")
    for group, tensors in groups(vae, state).items():
        for name, tensor in tensors.items():
            for lane, snapshot in enumerate(snapshots):
                if name in snapshot[group]:
                    tensor[lane] = snapshot[group][name][0]
    return epochs[0]
