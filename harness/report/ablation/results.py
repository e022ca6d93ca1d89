"""The results of an ablation: its plan joined with what is on record, and the questions that a report asks of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from harness import provenance
from harness.scores import Score, Scores, diverged
from harness.spec import TrialSpec
from harness.stats import Paired, Verdict, judge, paired
from harness.study import Ablation, Cell, Hypothesis
from harness.tracking import Record, Tracker


@dataclass(frozen=True, kw_only=True)
class AblationResults:
    """Everything that a report needs of an ablation.

    Attributes:
        name: of the study.
        budget: of the study, by name.
        study: the plan.
        cells: the trials of the plan.
        records: the finished runs by cell id.
        failures: the reasons of trials that failed for good, by cell id.
        pictures: the file pictures.npz of the first finished seed, by arm.
    """

    name: str
    budget: str
    study: Ablation
    cells: Sequence[Cell]
    records: Mapping[str, Record]
    failures: Mapping[str, str]
    pictures: Mapping[str, Path]

    @classmethod
    def collect(
        cls,
        name: str,
        budget: str,
        study: Ablation,
        runs: Mapping[str, str],
        failures: Mapping[str, str],
        tracker: Tracker,
    ) -> "AblationResults":
        """Read an ablation's results from where they are recorded; `runs` and `failures` are run ids and reasons by cell id."""
        cells = study.cells(budget)
        records = tracker.results({cell.spec.id: runs[cell.spec.id] for cell in cells if cell.spec.id in runs})
        pictures: dict[str, Path] = {}
        for cell in cells:
            if cell.spec.id in records and cell.arm not in pictures:
                pictures[cell.arm] = tracker.file(runs[cell.spec.id], "pictures.npz")
        return cls(name=name, budget=budget, study=study, cells=cells, records=records, failures=failures, pictures=pictures)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per finished trial: arm, seed, cell and every score."""
        rows = [
            {"arm": c.arm, "seed": c.seed, "cell": c.spec.id, **self.records[c.spec.id].metrics}
            for c in self.cells
            if c.spec.id in self.records
        ]
        return pd.DataFrame(rows)

    @property
    def scores(self) -> Scores:
        """The rows of all scores that the study may name, by key."""
        return self.study.scores

    @property
    def arms(self) -> list[str]:
        """The arms with at least one result, in the study's order."""
        return [a for a in self.study.arms if not self.table.empty and (self.table["arm"] == a).any()]

    def by_seed(self, arm: str, metric: str, seeds: Sequence[int] | None = None) -> list[float]:
        """Return a score of an arm, seed by seed; of all its finished seeds, sorted, unless `seeds` says which."""
        rows = self.table[self.table["arm"] == arm].set_index("seed")[metric]
        values: list[float] = rows.loc[list(seeds) if seeds is not None else sorted(rows.index)].tolist()
        return values

    def seeds(self, arm: str) -> list[int]:
        """Return the seeds for which an arm has a result, sorted."""
        found: list[int] = sorted(self.table.loc[self.table["arm"] == arm, "seed"].tolist())
        return found

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
    def judged(self) -> list[Hypothesis]:
        """The hypotheses whose arms have a seed in common and the score."""
        arms = set(self.arms)
        return [
            h
            for h in self.study.hypotheses
            if {h.better, h.worse} <= arms
            and self.common_seeds(h.better, h.worse)
            and all(self.has(arm, h.metric) for arm in (h.better, h.worse))
        ]

    @property
    def unjudged(self) -> list[Hypothesis]:
        """The hypotheses that cannot be judged: an arm, a common seed or the score itself is missing."""
        return [h for h in self.study.hypotheses if h not in self.judged]

    def has(self, arm: str, metric: str) -> bool:
        """Return whether every result of an arm has this score."""
        return metric in self.table and bool(self.table.loc[self.table["arm"] == arm, metric].notna().all())

    def present(self, rows: Sequence[Score]) -> list[Score]:
        """Return those scores that at least one result has."""
        return [row for row in rows if row.key in self.table and self.table[row.key].notna().any()]

    @property
    def claimed(self) -> list[tuple[list[float], list[float]]]:
        """The scores of the `better` and of the `worse` arm over their common seeds, per judged hypothesis."""
        pairs = []
        for h in self.judged:
            seeds = self.common_seeds(h.better, h.worse)
            pairs.append((self.by_seed(h.better, h.metric, seeds), self.by_seed(h.worse, h.metric, seeds)))
        return pairs

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The verdicts on the study's hypotheses, which are judged together."""
        claims = zip(self.judged, self.claimed, strict=True)
        return judge([(h.in_words(self.scores), *values, self.scores[h.metric].better) for h, values in claims])

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

    def origins(self, tag: str) -> str:
        """Return the values of a tag over all runs that this report rests on, in words."""
        return ", ".join(sorted({r.tags.get(tag, "unknown") for r in self.records.values()}))

    @property
    def commits(self) -> str:
        """The code that the trials ran with: commits, marked with `+dirty` if files differed from them, or versions."""
        return ", ".join(sorted({provenance.code_of(r.tags) for r in self.records.values()}))

    @property
    def scales(self) -> dict[str, list[str]]:
        """The arms by the scale of their native objective."""
        groups: dict[str, list[str]] = {}
        specs: dict[str, TrialSpec] = {c.arm: c.spec for c in self.cells}
        for arm in self.arms:
            groups.setdefault(str(specs[arm].scale), []).append(arm)
        return groups
