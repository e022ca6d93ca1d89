"""The state of trials between two epochs: all that each needs to go on from there, whichever trials train beside it then."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.models.vae import VAE, build, side_by_side
from harness.spec import TrialSpec
from harness.training.extras import AVERAGE
from harness.training.optimizers import OptimizerState
from harness.training.stopping import Best

# The state of one trial: "epoch", "parameters" and every slot of the optimizer as tensors by the parameter's name, and "best" of a
# trial with patience. One that has stopped has the best alone.
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


@torch.no_grad()
def model_of(spec: TrialSpec, image_shape: tuple[int, int, int], tensors: Mapping[str, Tensor]) -> VAE:
    """Return the model of one trial, of one lane, with copies of these weights by name, (1, ...) each, on their device."""
    vae = build(spec, image_shape)
    for name, parameter in vae.named_parameters():
        parameter.copy_(tensors[name][..., : parameter.shape[-1]])
    return vae.to(next(iter(tensors.values())).device)


@dataclass(frozen=True)
class TrainingState:
    """The state of a cohort's lanes after some epochs: copies on the cohort's device, which further training does not change.

    Attributes:
        epoch: the number of epochs done.
        lanes: the trials in the lanes.
        image_shape: channels, height and width of an image.
        groups: the tensors by group and parameter's name (see `groups`), with the lanes as first dimension.
        best: the best epochs of the trials with patience by spec id.
        stopped: the ids of those that have ended.
    """

    epoch: int
    lanes: tuple[TrialSpec, ...]
    image_shape: tuple[int, int, int]
    groups: dict[str, dict[str, Tensor]]
    best: Mapping[str, Best] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, epoch: int, lanes: Sequence[TrialSpec], image_shape: tuple[int, int, int], vae: VAE, state: OptimizerState
    ) -> "TrainingState":
        """Return a copy of the state of these lanes, with the trials `lanes`, after `epoch` epochs."""
        copies = {g: {name: t.detach().clone() for name, t in tensors.items()} for g, tensors in groups(vae, state).items()}
        return cls(epoch, tuple(lanes), image_shape, copies)

    def snapshot(self, spec: TrialSpec) -> Snapshot:
        """Return the state of one trial as if it had trained alone: tensors of one lane on the CPU, and primitives."""
        names = [name for name, _ in build(spec, self.image_shape).named_parameters()]  # a mixed model may have more parameters
        best = {"best": self.best[spec.id].snapshot(names)} if spec.id in self.best else {}
        if spec.id in self.stopped:
            return {"epoch": self.epoch} | best
        lane = self.lanes.index(spec)
        own = slice(lane, lane + 1)
        kept = {g: t for g, t in self.groups.items() if g != AVERAGE or spec.ema_decay}  # that of others is for company only
        return {"epoch": self.epoch} | best | {g: {n: t[n][own].to("cpu", copy=True) for n in names} for g, t in kept.items()}


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
                if name in snapshot.get(group, {}):
                    tensor[lane] = snapshot[group][name][0]
    return epochs[0]
