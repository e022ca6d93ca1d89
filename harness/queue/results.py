"""What a search's trials have brought, on record bit by bit: a kill between any two steps leaves what the next start completes.

A run's values are noted first, then, when all of a trial's runs are there or it is judged hopeless, its `outcome`: complete, pruned
or failed. Optuna is told that outcome later, when the order of batches allows it (points.py).
"""

import json
import math
from collections.abc import Container, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from harness.queue.optuna_internals import storage_of
from harness.queue.store import TrialStore
from harness.study import Search


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of one search."""

    store: TrialStore
    search: Search
    epochs: int

    @property
    def over_seeds(self) -> bool:
        """Whether a trial's reports are its seeds' values, rather than its epochs'."""
        return len(self.search.seeds) > 1

    def missing(self, t: FrozenTrial) -> list[int]:
        """Which of a trial's seeds have no value yet."""
        return [i for i in range(len(self.search.seeds)) if f"values.{i}" not in t.user_attrs]

    def judge(self, number: int, step: int, value: float) -> bool:
        """Report a value at an epoch or seed. Returns whether the trial is to be pruned, and notes it."""
        known = self.store.trial(number).intermediate_values
        if known and step < max(known):  # an epoch taken again after a stop: it has been judged
            return False
        trial = self.store.trial_object(number)
        if step not in known:
            trial.report(value, step)
        last = len(self.search.seeds) - 1 if self.over_seeds else self.epochs
        if step == last or not self._prunes(number, step):  # the last: it has cost all it can
            return False
        where = f"after {step + 1} seeds" if self.over_seeds else f"at epoch {step}"
        self.store.note(number, {"outcome": "pruned", "pruned": f"pruned {where}"})
        return True

    def _prunes(self, number: int, step: int) -> bool:
        """Whether the pruner gives a trial up at a step, asked once.

        Successive halving keeps on record which rungs a trial has reached and does not judge by them again. So what it says and the
        rungs are noted together first: after a kill in between, the next start takes both from the note.
        """
        t = self.store.trial(number)
        said = json.loads(t.user_attrs.get("judged", "{}"))
        if said.get("step") != step:
            seen = _AsNoted(self.store.study)
            said = {"step": step, "pruned": self.store.study.pruner.prune(seen, t), "rungs": seen.rungs}
            if seen.rungs:
                self.store.note(number, {"judged": json.dumps(said)})
        self.store.mark(number, said["rungs"])
        return said["pruned"]

    def settle(self, number: int, part: int, metrics: Mapping[str, float]) -> None:
        """Note what a finished run brought."""
        values = [metrics[o] for o in self.search.objectives]
        if not all(map(math.isfinite, values)):
            self.failed(number, f"objective not finite: {values}")
            return
        costs = {c.score: c.excess(metrics[c.score]) for c in self.search.constraints}
        self.store.note(number, {f"costs.{part}": json.dumps(costs), f"values.{part}": json.dumps(values)})
        self.conclude(number)

    def conclude(self, number: int) -> None:
        """Judge a trial by the seeds that are there, and call it complete when all are."""
        t = self.store.trial(number)
        missing = self.missing(t)
        if self.over_seeds and len(self.search.objectives) == 1:
            reported = max(t.intermediate_values, default=0)  # a kill may have come between that report and what it led to
            for part in sorted(set(range(reported, len(self.search.seeds))) - set(missing)):
                if self.judge(number, part, json.loads(t.user_attrs[f"values.{part}"])[0]):
                    return
        if not missing:
            self.store.note(number, {"outcome": "complete"})

    def failed(self, number: int, why: str) -> None:
        """Note that a trial has no result, and never will."""
        self.store.note(number, {"outcome": "failed", "failure": why})

    def tell(self, t: FrozenTrial) -> None:
        """Tell Optuna a trial's outcome."""
        match t.user_attrs["outcome"]:
            case "pruned":
                self.store.prune(t.number)
            case "failed":
                self.store.fail(t.number, t.user_attrs["failure"], final=True)
            case _:
                trial = self.store.trial_object(t.number)
                for score, excess in _excesses(t).items():
                    if score not in trial.constraints:
                        trial.set_constraint(score, excess)
                self.store.complete(t.number, _means(t))


class _AsNoted(optuna.Study):
    """A study as a pruner sees it: an outcome counts once it is noted, for when Optuna is told is a matter of what it is asked.

    Attributes:
        rungs: what the pruner would have put on record of the trial, by name; it is kept here.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.rungs: dict[str, float] = {}
        storage = cast(optuna.storages.BaseStorage, _Withholding(storage_of(study), self.rungs))
        super().__init__(study.study_name, storage, study.sampler, study.pruner)

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        trials = map(_as_noted, super().get_trials(deepcopy=deepcopy))
        return [t for t in trials if states is None or t.state in states]

    @property
    def best_trial(self) -> FrozenTrial:
        able = [
            t for t in self.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if max(_excesses(t).values(), default=0) <= 0
        ]
        return (max if self.direction == StudyDirection.MAXIMIZE else min)(able, key=lambda t: t.value)


class _Withholding:
    """A storage to read from; what is to be put on record of a trial goes to `rungs` instead."""

    def __init__(self, storage: optuna.storages.BaseStorage, rungs: dict[str, float]) -> None:
        self.storage, self.rungs = storage, rungs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    def set_trial_system_attr(self, _trial_id: int, name: str, value: float) -> None:
        self.rungs[name] = value


def _as_noted(t: FrozenTrial) -> FrozenTrial:
    if t.state.is_finished() or t.user_attrs.get("outcome") != "complete":
        return t
    told = copy(t)
    told.state, told.values = TrialState.COMPLETE, _means(t)
    return told


def _parts(t: FrozenTrial, kind: str) -> list:
    """What is noted of a trial's seeds, in their order."""
    noted = sorted(int(name.removeprefix(f"{kind}.")) for name in t.user_attrs if name.startswith(f"{kind}."))
    return [json.loads(t.user_attrs[f"{kind}.{i}"]) for i in noted]


def _means(t: FrozenTrial) -> list[float]:
    """A trial's values: their means over its seeds."""
    return [sum(v) / len(v) for v in zip(*_parts(t, "values"), strict=True)]


def _excesses(t: FrozenTrial) -> dict[str, float]:
    """By how much a trial breaks each constraint, on the seed on which it is worst."""
    costs = _parts(t, "costs")
    return {score: max(c[score] for c in costs) for score in costs[0]} if costs else {}
