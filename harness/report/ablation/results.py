"""What a study found: its plan joined with what is on record, and the questions a report asks of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from harness.spec import TrialSpec
from harness.stats import Paired, Verdict, judge, paired
from harness.study import SCORES, Ablation, Cell, Hypothesis
from harness.tracking import Record, Tracker


@dataclass(frozen=True, kw_only=True)
class AblationResults:
    """All that a report says of a study: its plan, the scores of every finished cell, and what went missing."""

    name: str
    budget: str
    study: Ablation
    cells: Sequence[Cell]
    records: Mapping[str, Record]  # by cell id
    failures: Mapping[str, str]
    pictures: Mapping[str, Path]  # by arm

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
        """Read a study's results back from where they are recorded: `runs` and `failures` are run ids and reasons by cell id."""
        cells = study.cells(budget)
        records = tracker.results({c.spec.id: runs[c.spec.id] for c in cells if c.spec.id in runs})
        first: dict[str, Path] = {}
        for c in cells:
            if c.spec.id in records and c.arm not in first:
                first[c.arm] = tracker.file(runs[c.spec.id], "pictures.npz")
        return cls(name=name, budget=budget, study=study, cells=cells, records=records, failures=failures, pictures=first)

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
    def arms(self) -> list[str]:
        """Arms with at least one result, in the study's order."""
        return [a for a in self.study.arms if not self.table.empty and (self.table["arm"] == a).any()]

    def by_seed(self, arm: str, metric: str, seeds: Sequence[int] | None = None) -> list[float]:
        """A score of an arm, seed by seed."""
        rows = self.table[self.table["arm"] == arm].set_index("seed")[metric]
        return rows.loc[list(seeds) if seeds is not None else sorted(rows.index)].tolist()

    def common_seeds(self, a: str, b: str) -> list[int]:
        """Seeds for which both arms have a result."""
        of = {arm: set(self.table.loc[self.table["arm"] == arm, "seed"]) for arm in (a, b)}
        return sorted(of[a] & of[b])

    def difference(self, a: str, b: str, metric: str) -> Paired:
        """a - b over common seeds."""
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
        """The hypotheses that cannot be judged: an arm, a seed in common or the score itself is missing."""
        return [h for h in self.study.hypotheses if h not in self.judged]

    def has(self, arm: str, metric: str) -> bool:
        """Whether every result of an arm has this score."""
        return metric in self.table and bool(self.table.loc[self.table["arm"] == arm, metric].notna().all())

    @property
    def claimed(self) -> list[tuple[list[float], list[float]]]:
        """Per judged hypothesis: the scores of 'better' and of 'worse' over their common seeds."""
        pairs = []
        for h in self.judged:
            seeds = self.common_seeds(h.better, h.worse)
            pairs.append((self.by_seed(h.better, h.metric, seeds), self.by_seed(h.worse, h.metric, seeds)))
        return pairs

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The study's hypotheses, judged together."""
        return judge([(str(h), *scores, SCORES[h.metric].better) for h, scores in zip(self.judged, self.claimed, strict=True)])

    @property
    def winner(self) -> Cell | None:
        """The best seed of the arm whose mean objective is best, on validation; None for a study without an objective."""
        if self.study.objective is None or self.table.empty:
            return None
        sign = 1 if SCORES[self.study.objective].better == "lower" else -1
        means = {a: sign * np.mean(self.by_seed(a, self.study.objective)) for a in self.arms}
        arm = min(means, key=means.__getitem__)
        mine = [c for c in self.cells if c.arm == arm and c.spec.id in self.records]
        return min(mine, key=lambda c: sign * self.records[c.spec.id].metrics[self.study.objective or ""])

    def origins(self, tag: str) -> str:
        """The values of a tag over all runs that this report rests on."""
        return ", ".join(sorted({r.tags.get(tag, "unknown") for r in self.records.values()}))

    @property
    def commits(self) -> str:
        """The commits that the trials ran at, marked where files differed from them."""
        marked = {
            r.tags.get("git.commit", "unknown") + ("+dirty" if r.tags.get("git.dirty") == "true" else "")
            for r in self.records.values()
        }
        return ", ".join(sorted(marked))

    @property
    def scales(self) -> dict[str, list[str]]:
        """Arms by the scale of their native objective."""
        groups: dict[str, list[str]] = {}
        specs: dict[str, TrialSpec] = {c.arm: c.spec for c in self.cells}
        for arm in self.arms:
            groups.setdefault(str(specs[arm].scale), []).append(arm)
        return groups
