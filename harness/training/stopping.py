"""Early stopping: the best epoch of a trial by its validation ELBO, its weights then, and when a trial has waited long enough.

Prechelt, 2012 (https://doi.org/10.1007/978-3-642-35289-8_5): stop after `patience` epochs without a better one, keep the best.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.scores import SCORES
from harness.scores.rows import BEST_EPOCH, ELBO_VALIDATION
from harness.spec import TrialSpec

CURVES = tuple(key for key, row in SCORES.items() if row.curve and row.images == "validation")  # what an epoch's row has of it
Groups = Mapping[str, Mapping[str, Tensor]]  # tensors of one lane, by group ("parameters", "average") and parameter's name


@dataclass(frozen=True)
class Best:
    """The best epoch of a trial so far.

    Attributes:
        epoch: its number, counted from 1.
        scores: the scores of the validation images after it, by metric key.
        groups: copies of the weights after it, and of their average if the trial keeps one.
    """

    epoch: int
    scores: Mapping[str, float]
    groups: Groups

    @property
    def row(self) -> dict[str, float]:
        """What is reported of validation after an epoch: the scores of the model that the trial would end with now."""
        return {**self.scores, BEST_EPOCH.key: float(self.epoch)}

    def snapshot(self, names: Collection[str]) -> dict[str, Any]:
        """Return it as primitives, and tensors on the CPU of the parameters of these names."""
        groups = {g: {n: tensors[n].to("cpu", copy=True) for n in names} for g, tensors in self.groups.items()}
        return {"epoch": self.epoch, "scores": dict(self.scores), "groups": groups}


class Patience:
    """The trials of a cohort that may end before its last epoch.

    Attributes:
        best: the best epoch so far by spec id, of every trial with patience that has done an epoch.
        stopped: the trials that have ended, in that order.
    """

    def __init__(self) -> None:
        self.best: dict[str, Best] = {}
        self.stopped: list[TrialSpec] = []

    def watch(
        self, specs: Sequence[TrialSpec], epoch: int, rows: Mapping[str, dict[str, float]], weights: Callable[[TrialSpec], Groups]
    ) -> list[TrialSpec]:
        """Take in an epoch of these trials and return those that go on.

        In the rows of trials with patience the scores of validation become those of the best epoch: what a trial would end with
        now is what a search may prune and select by.

        Args:
            specs: the trials that trained.
            epoch: the number of epochs done.
            rows: their rows by spec id, with the scores of the validation images.
            weights: returns a copy of a trial's weights.
        """
        for spec in specs:
            if not spec.patience:
                continue
            row, best = rows[spec.id], self.best.get(spec.id)
            if best is None or row[ELBO_VALIDATION.key] > best.scores[ELBO_VALIDATION.key]:
                best = self.best[spec.id] = Best(epoch, {key: row[key] for key in CURVES}, weights(spec))
            row |= best.row
            if epoch - best.epoch >= spec.patience:
                self.stopped.append(spec)
        return [spec for spec in specs if spec not in self.stopped]

    def restore(self, specs: Sequence[TrialSpec], snapshots: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Go on from these snapshots, one per trial. Those of trials that have stopped have no parameters to train on."""
        for spec, snapshot in zip(specs, snapshots, strict=True):
            if "best" in snapshot:
                kept = snapshot["best"]
                groups = {g: {n: t.to(device) for n, t in tensors.items()} for g, tensors in kept["groups"].items()}
                self.best[spec.id] = Best(kept["epoch"], kept["scores"], groups)
            if "parameters" not in snapshot:
                self.stopped.append(spec)
