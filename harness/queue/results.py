"""The results of a search's trials, recorded step by step: after a kill between any two steps the next start completes them.

A run's values are stored first; then, when all of a trial's runs are there or it is judged hopeless, its `outcome`: complete,
pruned or failed. Optuna is told that outcome later, when the order of batches allows it (search_queue.py).
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

from harness.errors import counted
from harness.queue.optuna_internals import storage_of
from harness.queue.store import TrialStore
from harness.study import Search


@dataclass(frozen=True)
class SearchOutcomes:
    """The record of one search's results and outcomes.

    Attributes:
        store: the trials.
        search: the search that they belong to.
        epochs: the epochs of a trial.
    """

    store: TrialStore
    search: Search
    epochs: int

    @property
    def over_seeds(self) -> bool:
        """True if a trial reports to the pruner its seeds' values; False if it reports its epochs'."""
        return len(self.search.seeds) > 1

    def missing(self, t: FrozenTrial) -> list[int]:
        """Return the indices of a trial's seeds that have no value yet."""
        return [i for i in range(len(self.search.seeds)) if f"values.{i}" not in t.user_attrs]

    def judge(self, number: int, step: int, value: float, *, over: bool = False) -> bool:
        """Report a value at an epoch or seed (`step`) to Optuna. Return whether the trial is to be pruned, and record it if so.

        A trial that is `over` already, its results being read back, is never pruned.
        """
        known = self.store.trial(number).intermediate_values
        if known and step < max(known):  # an epoch that is trained again after a stop has been judged already
            return False
        trial = self.store.trial_object(number)
        if step not in known:
            trial.report(value, step)
        last = len(self.search.seeds) - 1 if self.over_seeds else self.epochs
        if step == last or not self._prunes(number, step) or over:  # pruning at the last step would save nothing
            return False
        moment = f"after {counted(step + 1, 'seed')}" if self.over_seeds else f"at epoch {step}"
        self.store.note(number, {"outcome": "pruned", "pruned": f"pruned {moment}"})
        return True

    def _prunes(self, number: int, step: int) -> bool:
        """Return whether the pruner prunes a trial at a step. The pruner is asked once per step.

        Successive halving stores which rungs a trial has reached and does not judge by them again. Therefore its judgement and the
        rungs are stored together in one attribute first: after a kill in between, the next start reads both from there.
        """
        t = self.store.trial(number)
        judgement: dict[str, Any] = json.loads(t.user_attrs.get("judged", "{}"))
        if judgement.get("step") != step:
            study = _RecordedStudy(self.store.study)
            judgement = {"step": step, "pruned": self.store.study.pruner.prune(study, t), "rungs": study.rungs}
            if study.rungs:
                self.store.note(number, {"judged": json.dumps(judgement)})
        self.store.mark(number, judgement["rungs"])
        return bool(judgement["pruned"])

    def settle(self, number: int, part: int, metrics: Mapping[str, float], *, over: bool = False) -> None:
        """Store the objectives and constraints of a finished run; `part` is the index of its seed.

        A trial is not pruned if it is `over`, as one is whose further results are read back.
        """
        values = [metrics[o] for o in self.search.objectives]
        if not all(map(math.isfinite, values)):
            self.failed(number, f"objective not finite: {values}")
            return
        costs = {c.score: c.excess(metrics[c.score]) for c in self.search.constraints}
        self.store.note(number, {f"costs.{part}": json.dumps(costs), f"values.{part}": json.dumps(values)})
        self.conclude(number, over=over)

    def conclude(self, number: int, *, over: bool = False) -> None:
        """Judge a trial by the seeds that have values, and record it as complete when all have."""
        t = self.store.trial(number)
        missing = self.missing(t)
        if self.over_seeds and len(self.search.objectives) == 1:
            reported = max(t.intermediate_values, default=0)  # judged again: a kill may have come before its consequence
            for part in sorted(set(range(reported, len(self.search.seeds))) - set(missing)):
                if self.judge(number, part, json.loads(t.user_attrs[f"values.{part}"])[0], over=over):
                    return
        if not missing:
            self.store.note(number, {"outcome": "complete"})

    def failed(self, number: int, why: str) -> None:
        """Record that a trial has no result and never will."""
        self.store.note(number, {"outcome": "failed", "failure": why})

    def tell(self, t: FrozenTrial) -> None:
        """Tell Optuna the recorded outcome of a trial, with values and constraints if it is complete."""
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


class _RecordedStudy(optuna.Study):  # type: ignore[misc]  # mypy skips optuna (pyproject.toml): its classes are Any
    """A study as a pruner should see it: a trial counts as complete once its outcome is recorded.

    Optuna itself is told of outcomes later, in an order that the samplers need.

    Attributes:
        rungs: the system attributes that the pruner sets on the trial, by name; they are collected here instead of stored.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.rungs: dict[str, float] = {}
        storage = cast(optuna.storages.BaseStorage, _CollectingStorage(storage_of(study), self.rungs))
        super().__init__(study.study_name, storage, study.sampler, study.pruner)

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the trials in these states, or all, with recorded outcomes taken for told."""
        trials = map(_as_recorded, super().get_trials(deepcopy=deepcopy))
        return [t for t in trials if states is None or t.state in states]

    @property
    def best_trial(self) -> FrozenTrial:
        """The complete trial with the best value of those that keep the constraints."""
        feasible = [
            t for t in self.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if max(_excesses(t).values(), default=0) <= 0
        ]
        return (max if self.direction == StudyDirection.MAXIMIZE else min)(feasible, key=lambda t: t.value)


class _CollectingStorage:
    """A storage to read from. System attributes that are set on a trial go to the dict `rungs` instead."""

    def __init__(self, storage: optuna.storages.BaseStorage, rungs: dict[str, float]) -> None:
        self.storage, self.rungs = storage, rungs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    def set_trial_system_attr(self, _trial_id: int, name: str, value: float) -> None:
        """Keep an attribute in `rungs`."""
        self.rungs[name] = value


def _as_recorded(t: FrozenTrial) -> FrozenTrial:
    """Return a trial, as a COMPLETE copy with its values if it is recorded as complete but Optuna was not told yet."""
    if t.state.is_finished() or t.user_attrs.get("outcome") != "complete":
        return t
    complete = copy(t)
    complete.state, complete.values = TrialState.COMPLETE, _means(t)
    return complete


def _parts(t: FrozenTrial, kind: str) -> list[Any]:
    """Return what is stored of a trial's seeds under `kind` ("values" or "costs"), in the order of the seeds."""
    seeds = sorted(int(name.removeprefix(f"{kind}.")) for name in t.user_attrs if name.startswith(f"{kind}."))
    return [json.loads(t.user_attrs[f"{kind}.{i}"]) for i in seeds]


def _means(t: FrozenTrial) -> list[float]:
    """Return a trial's value of each objective: the mean over its seeds."""
    return [sum(v) / len(v) for v in zip(*_parts(t, "values"), strict=True)]


def _excesses(t: FrozenTrial) -> dict[str, float]:
    """Return by how much a trial breaks each constraint, on the seed on which it is worst."""
    costs = _parts(t, "costs")
    return {score: max(c[score] for c in costs) for score in costs[0]} if costs else {}
