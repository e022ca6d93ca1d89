"""The results of an ablation: its plan joined with what is on record, and the questions that a report asks of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from harness import provenance
from harness.plans import PlanRecord
from harness.report.ablation.judging import Judgement, all_settled, judgements, planned_claims
from harness.scores import Score, Scores, diverged
from harness.spec import TrialSpec
from harness.stats import Paired, paired
from harness.study import Ablation, Cell
from harness.tracking import Record, Tracker

NO_PLAN = PlanRecord()


@dataclass(frozen=True, kw_only=True)
class AblationResults:
    """Everything that a report needs of an ablation.

    Attributes:
        name: of the study.
        budget: of the study, by name.
        study: the plan.
        cells: the trials of the plan, as far as its looks have come.
        records: the finished runs by cell id, those of earlier plans too.
        failures: the reasons of trials that failed for good, by cell id.
        plan: what was stated before the runs, and the looks at them.
        seeds_due: the number of seeds that its looks have come to; None for all.
    """

    name: str
    budget: str
    study: Ablation
    cells: Sequence[Cell]
    records: Mapping[str, Record]
    failures: Mapping[str, str]
    plan: PlanRecord = NO_PLAN
    seeds_due: int | None = None

    @classmethod
    def collect(
        cls,
        name: str,
        budget: str,
        study: Ablation,
        runs: Mapping[str, str],
        failures: Mapping[str, str],
        tracker: Tracker,
        *,
        plan: PlanRecord = NO_PLAN,
        seeds: int | None = None,
    ) -> "AblationResults":
        """Read an ablation's results from where they are recorded.

        Args:
            name: of the study.
            budget: of the study, by name.
            study: the plan.
            runs: run ids by cell id, those of earlier plans too.
            failures: reasons by cell id.
            tracker: of the study.
            plan: what was stated before the runs.
            seeds: the number of seeds that its looks have come to; None for all.
        """
        cells = study.cells(budget, seeds)
        records = tracker.results(runs)
        return cls(
            name=name,
            budget=budget,
            study=study,
            cells=cells,
            records=records,
            failures=failures,
            plan=plan,
            seeds_due=seeds,
        )

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per finished trial: arm, seed, cell and every score."""
        rows = [
            {"arm": c.arm, "seed": c.seed, "cell": c.spec.id, **self.records[c.spec.id].metrics}
            for c in self.cells
            if c.spec.id in self.records
        ]
        return pd.DataFrame(rows)

    @cached_property
    def _metrics(self) -> Mapping[str, Mapping[int, Mapping[str, float]]]:
        """The scores of every finished trial, by arm and seed."""
        found: dict[str, dict[int, Mapping[str, float]]] = {}
        for cell in self.cells:
            if cell.spec.id in self.records:
                found.setdefault(cell.arm, {})[cell.seed] = self.records[cell.spec.id].metrics
        return found

    @cached_property
    def _keys(self) -> frozenset[str]:
        """The keys of the scores that at least one finished trial has."""
        return frozenset(key for seeds in self._metrics.values() for metrics in seeds.values() for key in metrics)

    @property
    def pictured(self) -> Mapping[str, str]:
        """The run whose pictures stand for an arm, that of its first finished seed, by arm."""
        found: dict[str, str] = {}
        for cell in self.cells:
            if cell.spec.id in self.records:
                found.setdefault(cell.arm, self.records[cell.spec.id].run)
        return found

    @property
    def scores(self) -> Scores:
        """The rows of all scores that the study may name, by key."""
        return self.study.scores

    @property
    def arms(self) -> list[str]:
        """The arms with at least one result, in the study's order."""
        return [arm for arm in self.study.arms if arm in self._metrics]

    def by_seed(self, arm: str, metric: str, seeds: Sequence[int] | None = None) -> list[float]:
        """Return a score of an arm, seed by seed; of all its finished seeds, sorted, unless `seeds` says which."""
        if metric not in self._keys:
            raise KeyError(metric)
        own = self._metrics.get(arm, {})
        return [own[seed].get(metric, np.nan) for seed in (sorted(own) if seeds is None else seeds)]

    def seeds(self, arm: str) -> list[int]:
        """Return the seeds for which an arm has a result, sorted."""
        return sorted(self._metrics.get(arm, {}))

    def diverged(self, arm: str) -> dict[int, str]:
        """Return how the scores of an arm show that training diverged, in words, by seed; seeds of sound training are left out."""
        runs = {c.seed: self.records[c.spec.id] for c in self.cells if c.arm == arm and c.spec.id in self.records}
        found = {seed: diverged(record.metrics) for seed, record in runs.items()}
        return {seed: words for seed, words in found.items() if words}

    def common_seeds(self, a: str, b: str) -> list[int]:
        """Return the seeds for which both arms have a result."""
        return sorted(set(self.seeds(a)) & set(self.seeds(b)))

    def difference(self, a: str, b: str, metric: str) -> Paired:
        """Return the difference a - b of a score over the seeds that both arms have."""
        seeds = self.common_seeds(a, b)
        return paired(self.by_seed(a, metric, seeds), self.by_seed(b, metric, seeds))

    @property
    def pending(self) -> int:
        """The number of trials that have neither a result nor failed for good."""
        return sum(c.spec.id not in self.records and c.spec.id not in self.failures for c in self.cells)

    def has(self, arm: str, metric: str) -> bool:
        """Return whether every result of an arm has this score."""
        return metric in self._keys and not np.isnan(self.by_seed(arm, metric)).any()

    def present(self, rows: Sequence[Score]) -> list[Score]:
        """Return those scores that at least one result has."""
        return [row for row in rows if row.key in self.table and self.table[row.key].notna().any()]

    @cached_property
    def judgements(self) -> list[Judgement]:
        """The study's claims as they are judged together, those that were withdrawn after a result last."""
        claims = planned_claims(self.plan, self.study, self.name, self.budget)
        return judgements(claims, self.records, self.failures, self.seeds_due)

    @property
    def interim(self) -> bool:
        """True if there are claims and a verdict on none yet, so that differences of arms should not be shown either."""
        return bool(self.judgements) and not any(j.verdict for j in self.judgements)

    @property
    def settled(self) -> bool:
        """True if every claim has a verdict that further planned looks would not change."""
        return bool(self.judgements) and all_settled(self.judgements)

    @property
    def winner(self) -> Cell | None:
        """The best seed of the arm whose mean objective is best, on validation; None for a study without an objective."""
        if self.study.objective is None or self.table.empty:
            return None
        objective = self.scores[self.study.objective]
        means = {a: objective.sign * np.mean(self.by_seed(a, objective.key)) for a in self.arms}
        arm = max(means, key=means.__getitem__)
        candidates = [c for c in self.cells if c.arm == arm and c.spec.id in self.records]
        return max(candidates, key=lambda c: objective.sign * self.records[c.spec.id].metrics[objective.key])

    @property
    def present_records(self) -> list[Record]:
        """The finished runs of the present plan."""
        return [self.records[c.spec.id] for c in self.cells if c.spec.id in self.records]

    def origins(self, tag: str) -> str:
        """Return the values of a tag over all runs that this report rests on, in words."""
        return ", ".join(sorted({r.tags.get(tag, "unknown") for r in self.present_records}))

    @property
    def commits(self) -> str:
        """The code that the trials ran with: commits, marked with `+dirty` if files differed from them, or versions."""
        return ", ".join(sorted({provenance.code_of(r.tags) for r in self.present_records}))

    @property
    def scales(self) -> dict[str, list[str]]:
        """The arms by the scale of their native objective."""
        groups: dict[str, list[str]] = {}
        specs: dict[str, TrialSpec] = {c.arm: c.spec for c in self.cells}
        for arm in self.arms:
            groups.setdefault(str(specs[arm].scale), []).append(arm)
        return groups
