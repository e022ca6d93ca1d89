"""Trials between two epochs: what each needs to go on from there, whoever trains beside it then."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.models.vae import VAE, build, side_by_side
from harness.spec import TrialSpec
from harness.training.optimizers import OptimizerState

Snapshot = dict[
    str, Any
]  # of one trial: its epoch and, each by parameter's name, "parameters" and what its optimizer keeps of them


def groups(vae: VAE, state: OptimizerState) -> dict[str, dict[str, Tensor]]:
    """All that training changes: parameters and their moments, by parameter's name."""
    names = [name for name, _ in vae.named_parameters()]
    found: dict[str, Iterable[Tensor]] = {"parameters": vae.parameters(), **state.slots}
    return {group: dict(zip(names, tensors, strict=True)) for group, tensors in found.items()}


@torch.no_grad()
def extract(vae: VAE, lanes: Sequence[int], specs: Sequence[TrialSpec], pixels: int) -> VAE:
    """These lanes of a model as a model of its own. `specs` are the trials in them."""
    alone = side_by_side(specs, pixels).to(next(vae.parameters()).device)
    ours = dict(vae.named_parameters())
    for name, new in alone.named_parameters():
        new.copy_(ours[name][list(lanes)][..., : new.shape[-1]])
    return alone


@dataclass(frozen=True)
class TrainingState:
    """The lanes of a cohort after `epoch` epochs: copies, on the cohort's device, which training leaves alone."""

    epoch: int
    lanes: tuple[TrialSpec, ...]
    pixels: int
    groups: dict[str, dict[str, Tensor]]

    @classmethod
    def of(cls, epoch: int, lanes: Sequence[TrialSpec], pixels: int, vae: VAE, state: OptimizerState) -> "TrainingState":
        """The border that these lanes stand at."""
        copies = {g: {name: t.detach().clone() for name, t in tensors.items()} for g, tensors in groups(vae, state).items()}
        return cls(epoch, tuple(lanes), pixels, copies)

    def snapshot(self, spec: TrialSpec) -> Snapshot:
        """One trial, as it would be alone: tensors on the CPU and primitives."""
        lane = self.lanes.index(spec)
        names = [name for name, _ in build(spec, self.pixels).named_parameters()]  # company may bring scalars that it lacks
        return {"epoch": self.epoch} | {g: {n: t[n][[lane]].cpu() for n in names} for g, t in self.groups.items()}


@torch.no_grad()
def restore(vae: VAE, state: OptimizerState, snapshots: Sequence[Snapshot]) -> int:
    """Put one snapshot into every lane; all must be of one epoch, which is returned. Steps taken are the caller's to set."""
    (epoch, *others) = {s["epoch"] for s in snapshots}
    if others:
        raise ValueError(f"snapshots of different epochs cannot train together: {sorted([epoch, *others])}")
    for group, tensors in groups(vae, state).items():
        for name, tensor in tensors.items():
            for lane, snapshot in enumerate(snapshots):
                if name in snapshot[group]:
                    tensor[lane] = snapshot[group][name][0]
    return epoch
