"""Two reports held side by side: what differs in their plans, and their scores, paired where arms and seeds agree.

Only the files of reports are read, so that they may come from other commits, machines and people.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import UserError
from harness.report.ablation.judging import finite
from harness.report.ablation.tables import interval, number
from harness.report.exports import TRIALS, VERDICTS
from harness.scores import COST, SCORES, Score, compared, in_groups, row_of
from harness.stats import Paired, paired, summary

PLAN = ("study", "budget", "question", "dataset", "dataset_digest", "epochs", "evaluation", "objective")
ORIGIN = ("code", "machine", "torch", "python", "plan")
SHORT = 12  # digits of a digest
ABSENT = "-"
TIME_UNITS = ("ms", "(s", "images/s")  # in the labels of costs that are times
TIMES_NOTE = "Times that were measured at different moments, or beside other work of the machine, do not compare."
PLAN_NOTE = (
    "The claims are the same. A plan's digest also covers its arms, seeds, code and data, every earlier plan and look at results, "
    "and the time of each: it is that of one record, and another run of the same study has another."
)


@dataclass(frozen=True)
class Side:
    """A report that is compared.

    Attributes:
        label: what it is called.
        facts: of verdicts.json.
        trials: of trials.csv, a row per trial.
    """

    label: str
    facts: Mapping[str, Any]
    trials: pd.DataFrame

    @classmethod
    def of(cls, label: str, folder: Path) -> "Side":
        """Read a report.

        Raises:
            UserError: the folder has no report that can be read, or one of an earlier version.
        """
        try:
            facts = json.loads((folder / VERDICTS).read_text(encoding="utf-8"))
            trials = pd.read_csv(folder / TRIALS, dtype={"arm": str, "run": str})
            arms = {entry["arm"]: entry for entry in facts["arms"]}
            if not {"arm", "seed", "run"} <= set(trials):
                raise KeyError("run")
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise UserError(
                f"{folder}: {VERDICTS} and {TRIALS} of a report cannot be read ({type(fault).__name__}: {fault})\n"
                "an earlier version wrote less into them: `harness report` writes a study's report anew"
            ) from None
        return cls(label, {**facts, "arms": arms}, trials)

    @property
    def arms(self) -> list[str]:
        """The arms with a result, in the study's order."""
        return list(dict.fromkeys(self.trials["arm"]))

    def values(self, arm: str, key: str) -> dict[int, float]:
        """Return a score of an arm by seed; seeds without it are left out."""
        if key not in self.trials:
            return {}
        rows = self.trials.loc[self.trials["arm"] == arm, ["seed", key]].dropna()
        return dict(zip(rows["seed"].astype(int), rows[key].astype(float), strict=True))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A score of an arm on both sides.

    Attributes:
        arm: its name, or both names where they differ.
        score: its row.
        a, b: the values by seed on each side.
        paired: b - a over the seeds that both have; None if they have none in common.
    """

    arm: str
    score: Score
    a: Mapping[int, float]
    b: Mapping[int, float]
    paired: Paired | None

    @property
    def verdict(self) -> str:
        """In a word which side is better as far as the interval says; empty if it says nothing."""
        if self.paired is None or not np.isfinite(self.paired.low) or self.paired.low <= 0 <= self.paired.high:
            return ""
        higher = self.paired.low > 0
        if not self.score.better:
            return "B higher" if higher else "B lower"
        return "B better" if higher == (self.score.better == "higher") else "B worse"

    @property
    def same(self) -> bool:
        """True if all seeds that both have give exactly the same value."""
        return self.paired is not None and all(self.a[seed] == self.b[seed] for seed in set(self.a) & set(self.b))

    @property
    def is_time(self) -> bool:
        """True if the score is a time, or a number per time, that a trial took."""
        return self.score.group == COST and any(unit in self.score.label for unit in TIME_UNITS)

    @property
    def texts(self) -> list[str]:
        """The row as people read it, without its score."""
        digits = self.score.digits
        difference = ABSENT if self.paired is None else "the same" if self.same else interval(self.paired, digits)
        n = str(self.paired.n) if self.paired else f"{len(self.a)}, {len(self.b)}"
        return [self.arm, _spread(self.a, digits), _spread(self.b, digits), n, difference, self.verdict]


HEADINGS = ("arm", "A", "B", "n", "B - A, paired", "")


@dataclass(frozen=True)
class Comparison:
    """Two reports side by side."""

    a: Side
    b: Side

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """The arms that belong together: those of one name, then those of equal specs under other names."""
        named = [(arm, arm) for arm in self.a.arms if arm in self.b.arms]
        rest = [arm for arm in self.b.arms if arm not in self.a.arms]
        specs = {json.dumps(self.b.facts["arms"][arm]["spec"], sort_keys=True): arm for arm in rest}
        for arm in self.a.arms:
            other = specs.get(json.dumps(self.a.facts["arms"][arm]["spec"], sort_keys=True))
            if arm not in self.b.arms and other:
                named.append((arm, other))
        return named

    @cached_property
    def rows(self) -> list[Row]:
        """A row for every headline score and cost of every pair of arms."""
        return [row for score in self._scores() for pair in self.pairs if (row := self._row(*pair, score))]

    @cached_property
    def by_score(self) -> dict[str, list[Row]]:
        """The rows by the heading of their score, without scores that are one and the same number everywhere."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.score.heading, []).append(row)
        return {k: rows for k, rows in found.items() if len({v for r in rows for v in (*r.a.values(), *r.b.values())}) > 1}

    @property
    def headline(self) -> str:
        """In one sentence how far the two agree."""
        same, pairs = self.identical
        arms = "1 arm" if len(self.pairs) == 1 else f"{len(self.pairs)} arms"
        if not pairs:
            return f"{arms} on both sides, without a seed in common: nothing is paired."
        trials = "1 pair" if pairs == 1 else f"{pairs} pairs"
        equal = "all" if same == pairs else str(same or "none")
        told = [row for row in self.rows if row.score.group != COST]
        clear = f"; {sum(bool(row.verdict) for row in told)} of {len(told)} differences have an interval without 0"
        return f"{arms} on both sides, {trials} of trials with equal seeds: {equal} with equal scores{clear * (same < pairs)}."

    @cached_property
    def differences(self) -> list[tuple[str, str, str]]:
        """What differs in plans and origins: what it is, and its value on each side."""
        found = [(name, _text(self.a.facts.get(name)), _text(self.b.facts.get(name))) for name in (*PLAN, *ORIGIN)]
        found = [row for row in found if row[1] != row[2]]
        alone = [
            ", ".join(arm for arm in side.arms if arm not in {pair[i] for pair in self.pairs})
            for i, side in enumerate((self.a, self.b))
        ]
        if any(alone):
            found.append(("arms without a counterpart", alone[0] or ABSENT, alone[1] or ABSENT))
        return found + list(self._fields())

    @cached_property
    def claims(self) -> list[tuple[str, str, str]]:
        """What came out of every claim on each side."""
        outcomes = [{row["claim"]: row["outcome"] for row in side.facts["verdicts"]} for side in (self.a, self.b)]
        first, second = outcomes
        return [(c, first.get(c, "not stated"), second.get(c, "not stated")) for c in dict.fromkeys([*first, *second])]

    @property
    def plan_note(self) -> str:
        """Why the digests of the plans differ though the claims are the same; empty where that is not so."""
        claims = [[row["claim"] for row in side.facts["verdicts"]] for side in (self.a, self.b)]
        return PLAN_NOTE if claims[0] == claims[1] and any(what == "plan" for what, *_ in self.differences) else ""

    @property
    def identical(self) -> tuple[int, int]:
        """The number of pairs of trials, of the same arm and seed, whose scores are all equal, costs aside; and of all pairs."""
        keys = [k for k in self.a.trials if k in self.b.trials and (row := row_of(k, SCORES)) and row.group != COST]
        same = total = 0
        for arm, other in self.pairs:
            first = self.a.trials[self.a.trials["arm"] == arm].set_index("seed")
            second = self.b.trials[self.b.trials["arm"] == other].set_index("seed")
            for seed in first.index.intersection(second.index):
                total += 1
                same += first.loc[seed, keys].equals(second.loc[seed, keys])
        return same, total

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "a": {"label": self.a.label, **{name: self.a.facts.get(name) for name in (*PLAN, *ORIGIN)}},
            "b": {"label": self.b.label, **{name: self.b.facts.get(name) for name in (*PLAN, *ORIGIN)}},
            "differences": [dict(zip(("what", "a", "b"), row, strict=True)) for row in self.differences],
            "claims": [dict(zip(("claim", "a", "b"), row, strict=True)) for row in self.claims],
            "identical_trials": self.identical[0],
            "paired_trials": self.identical[1],
            "scores": self.frame().to_dict("records"),
        }

    def frame(self) -> pd.DataFrame:
        """Return the rows at full precision: arm, metric, means, number of pairs, difference b - a and its 95 % interval."""
        return pd.DataFrame(
            [
                {
                    "arm": row.arm,
                    "metric": row.score.key,
                    "a": _mean(row.a),
                    "b": _mean(row.b),
                    "n": row.paired.n if row.paired else 0,
                    "difference": row.paired.mean if row.paired else None,
                    "low": finite(row.paired.low) if row.paired else None,
                    "high": finite(row.paired.high) if row.paired else None,
                }
                for row in self.rows
            ]
        )

    def _scores(self) -> Iterator[Score]:
        """Yield the headline scores that both sides have, own ones of a study too, then what trials cost."""
        known = [s for scores in compared(SCORES).values() for s in scores if s.headline] + in_groups(SCORES, COST)
        claimed = {row["metric"] for side in (self.a, self.b) for row in side.facts["verdicts"]}
        own = [Score(key=key, label=key) for key in sorted(claimed) if key not in SCORES]
        yield from (s for s in (*own, *known) if s.key in self.a.trials and s.key in self.b.trials)

    def _row(self, arm: str, other: str, score: Score) -> Row | None:
        """Return the row of a score; None if an arm has none on one side."""
        a, b = self.a.values(arm, score.key), self.b.values(other, score.key)
        if not a or not b:
            return None
        seeds = sorted(set(a) & set(b))
        difference = paired([b[s] for s in seeds], [a[s] for s in seeds]) if seeds else None
        return Row(arm=arm if arm == other else f"{arm} | {other}", score=score, a=a, b=b, paired=difference)

    def _fields(self) -> Iterator[tuple[str, str, str]]:
        """Yield the fields of specs that differ, once for all arms where it is the same difference in all."""
        by_change: dict[tuple[str, str, str], list[str]] = {}
        for arm, other in self.pairs:
            mine, theirs = self.a.facts["arms"][arm]["spec"], self.b.facts["arms"][other]["spec"]
            for name in dict.fromkeys([*mine, *theirs]):
                change = (name, _text(mine.get(name)), _text(theirs.get(name)))
                if change[1] != change[2] and name not in PLAN:
                    by_change.setdefault(change, []).append(arm)
        for (name, before, after), arms in by_change.items():
            whose = "" if len(arms) == len(self.pairs) else f" of {', '.join(arms)}"
            yield f"{name}{whose}", before, after


def _text(value: Any) -> str:
    """Return a fact as text; digests are shortened."""
    if value is None or value == "":
        return ABSENT
    text = str(value)
    return text[:SHORT] if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def _mean(values: Mapping[int, float]) -> float:
    """Return the mean over seeds."""
    return summary(list(values.values())).mean


def _spread(values: Mapping[int, float], digits: int) -> str:
    """Return mean and standard deviation over seeds as text."""
    over_seeds = summary(list(values.values()))
    return number(over_seeds.mean, digits) + (f" ± {number(over_seeds.spread, digits)}" if over_seeds.n > 1 else "")
