"""What a search's trials have brought, on record bit by bit: a kill between any two steps leaves what the next start completes.

A run's values are noted first, then, when all of a trial's runs are there or it is judged hopeless, its `outcome`: complete, pruned
or failed. Optuna is told that outcome later, when the order of batches allows it (points.py).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from harness.desk.ledger import Ledger
from harness.study import Search


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of one search."""

    ledger: Ledger
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
        known = self.ledger.trial(number).intermediate_values
        if known and step < max(known):  # an epoch taken again after a stop: it has been judged
            return False
        trial = self.ledger.trial_object(number)
        if step not in known:
            trial.report(value, step)
        last = len(self.search.seeds) - 1 if self.over_seeds else self.epochs
        if step == last or not trial.should_prune():  # it has cost all that it can cost
            return False
        where = f"after {step + 1} seeds" if self.over_seeds else f"at epoch {step}"
        self.ledger.note(number, {"outcome": "pruned", "pruned": f"pruned {where}"})
        return True

    def settle(self, number: int, part: int, metrics: Mapping[str, float]) -> None:
        """Note what a finished run brought."""
        values = [metrics[o] for o in self.search.objectives]
        if not all(map(math.isfinite, values)):
            self.failed(number, f"objective not finite: {values}")
            return
        costs = {c.score: c.excess(metrics[c.score]) for c in self.search.constraints}
        self.ledger.note(number, {f"costs.{part}": json.dumps(costs), f"values.{part}": json.dumps(values)})
        self.conclude(number)

    def conclude(self, number: int) -> None:
        """Judge a trial by the seeds that are there, and call it complete when all are."""
        t = self.ledger.trial(number)
        missing = self.missing(t)
        if self.over_seeds and len(self.search.objectives) == 1:
            for part in sorted(set(range(len(self.search.seeds))) - set(missing) - set(t.intermediate_values)):
                if self.judge(number, part, json.loads(t.user_attrs[f"values.{part}"])[0]):
                    return
        if not missing:
            self.ledger.note(number, {"outcome": "complete"})

    def failed(self, number: int, why: str) -> None:
        """Note that a trial has no result, and never will."""
        self.ledger.note(number, {"outcome": "failed", "failure": why})

    def tell(self, t: FrozenTrial) -> None:
        """Tell Optuna a trial's outcome."""
        match t.user_attrs["outcome"]:
            case "pruned":
                self.ledger.prune(t.number)
            case "failed":
                self.ledger.fail(t.number, t.user_attrs["failure"], final=True)
            case _:
                parts = range(len(self.search.seeds))
                values = [json.loads(t.user_attrs[f"values.{i}"]) for i in parts]
                trial = self.ledger.trial_object(t.number)
                for c in self.search.constraints:
                    if c.score not in trial.constraints:
                        trial.set_constraint(c.score, max(json.loads(t.user_attrs[f"costs.{i}"])[c.score] for i in parts))
                self.ledger.complete(t.number, [sum(v) / len(v) for v in zip(*values, strict=True)])
