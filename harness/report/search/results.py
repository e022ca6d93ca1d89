"""The results of a search: its trials as the trial store holds them, and the questions that a report asks of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.queue import SearchQueue, SearchTrial
from harness.scores import Score
from harness.study import Search
from harness.study.space import Parameter


@dataclass(frozen=True, kw_only=True)
class SearchResults:
    """Everything that a report needs of a search's trials.

    Attributes:
        search: the plan.
        budget: by name.
        history: every trial suggested so far, by number.
        best: those that no other beats in every objective, best by the first objective first; they keep the constraints.
        sampler: its name.
        optuna: the version of Optuna that created the trials.
        parameters: by name, those that matter most first, of every parameter that any trial has.
        importances: shares by parameter; empty if too few trials are complete.
    """

    search: Search
    budget: str
    history: Sequence[SearchTrial]
    best: Sequence[SearchTrial]
    sampler: str
    optuna: str
    parameters: Mapping[str, Parameter]
    importances: Mapping[str, float]

    @classmethod
    def of(cls, search: Search, budget: str, queue: SearchQueue) -> "SearchResults":
        """Read all of it from the trial store at once."""
        history = sorted(queue.history(), key=lambda trial: trial.number)
        parameters: dict[str, Parameter] = {}
        for trial in history:

            def recorded_value(p: Parameter, trial: SearchTrial = trial) -> Any:
                parameters.setdefault(p.name, p)
                return trial.params[p.name]

            search.point(budget, recorded_value)
        importances = queue.importances()
        ordered = dict(sorted(parameters.items(), key=lambda item: -importances.get(item[0], 0)))
        attributes = queue.store.study.user_attrs
        sampler = attributes.get("sampler", search.sampler_of(budget))
        return cls(
            search=search,
            budget=budget,
            history=history,
            best=queue.best(),
            sampler=sampler,
            optuna=attributes["optuna"],
            parameters=ordered,
            importances=importances,
        )

    def in_state(self, state: str) -> list[SearchTrial]:
        """Return the trials in this state, which is one of Optuna's."""
        return [trial for trial in self.history if trial.state == state]

    @property
    def objectives(self) -> list[Score]:
        """The rows of the objectives, in the search's order."""
        return [self.search.scores[key] for key in self.search.objectives]

    def value(self, trial: SearchTrial, objective: Score) -> float:
        """Return a trial's value of an objective; for a pruned one the last that it reported; nan if it has none."""
        return (trial.values or {}).get(objective.key, np.nan)

    @property
    def multi_objective(self) -> bool:
        """True if there is more than one objective."""
        return len(self.search.objectives) > 1

    @property
    def over_seeds(self) -> bool:
        """True if a trial reports a value per seed, rather than one per epoch."""
        return len(self.search.seeds) > 1

    def epochs(self, trial: SearchTrial) -> int:
        """Return the epochs that a trial which has ended took, as far as it reported them; else the most that it may have."""
        epochs, seeds = self.search.budgets[self.budget].epochs, len(self.search.seeds)
        if trial.state == "COMPLETE" and (self.over_seeds or not trial.reports):
            return epochs * seeds
        last_report = max(trial.reports, default=-1 if self.over_seeds else 0)
        return epochs * (last_report + 1) if self.over_seeds else last_report

    @property
    def ranked(self) -> list[SearchTrial]:
        """The complete trials by the objective of quality, best first; those that keep the constraints come before the others."""
        quality = self.search.quality
        return sorted(
            self.in_state("COMPLETE"),
            key=lambda trial: (not trial.feasible, -quality.sign * self.value(trial, quality), trial.number),
        )
