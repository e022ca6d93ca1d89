"""What a search found: its trials as they stand in the ledger, and the questions a report asks of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.queue import SearchQueue, SearchTrial
from harness.study import SCORES, Search
from harness.study.space import Parameter


@dataclass(frozen=True, kw_only=True)
class SearchResults:
    """All that a report says of a search's trials.

    Attributes:
        history: every trial asked for so far, by number.
        best: those that no other beats in every objective, best by the first objective first; they keep the constraints.
        parameters: by name, those that matter most first, of every parameter that any trial has.
        importances: shares by parameter; empty where too few trials are complete.
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
        """Read all of it from the ledger at once."""
        history = sorted(queue.history(), key=lambda a: a.number)
        found: dict[str, Parameter] = {}
        for a in history:

            def again(p: Parameter, a: SearchTrial = a) -> Any:
                found.setdefault(p.name, p)
                return a.params[p.name]

            search.point(budget, again)
        shares = queue.importances()
        ordered = dict(sorted(found.items(), key=lambda item: -shares.get(item[0], 0)))
        facts = queue.store.study.user_attrs
        sampler = facts.get("sampler", search.sampler_of(budget))
        return cls(
            search=search,
            budget=budget,
            history=history,
            best=queue.best(),
            sampler=sampler,
            optuna=facts["optuna"],
            parameters=ordered,
            importances=shares,
        )

    def those(self, state: str) -> list[SearchTrial]:
        """Trials in this state."""
        return [a for a in self.history if a.state == state]

    def value(self, a: SearchTrial, objective: str) -> float:
        """A trial's value of an objective, of a pruned one the last that it reported; nan where there is none."""
        return (a.values or {}).get(objective, np.nan)

    @property
    def several(self) -> bool:
        """Whether there is more than one objective."""
        return len(self.search.objectives) > 1

    @property
    def over_seeds(self) -> bool:
        """Whether what a trial reported is a value per seed, rather than one per epoch."""
        return len(self.search.seeds) > 1

    def epochs(self, a: SearchTrial) -> int:
        """Epochs that a trial that is over took, as far as it reported them."""
        each, seeds = self.search.budgets[self.budget].epochs, len(self.search.seeds)
        if a.state == "COMPLETE":
            return each * seeds
        ended = max(a.reports, default=-1 if self.over_seeds else 0)
        return each * (ended + 1) if self.over_seeds else ended

    @property
    def ranked(self) -> list[SearchTrial]:
        """Complete trials, best first: those that keep the constraints before the others; by the objective of quality."""
        sign = way(self.search.quality)
        return sorted(self.those("COMPLETE"), key=lambda a: (not a.feasible, -sign * self.value(a, self.search.quality), a.number))


def way(objective: str) -> int:
    """1 where higher is better, else -1."""
    return 1 if SCORES[objective].better == "higher" else -1
