"""The verdicts of a study as everything shows them: claims with their standing, judged together at the looks that are due."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.plans import BROKEN, UNPLANNED, PlannedClaim, PlanRecord, claims_of, stated
from harness.stats import Claim, Paired, Verdict, bootstrap_interval, judge, settled
from harness.study import Ablation
from harness.tracking import Record

MARKS = {"confirmed": ("yes", "green"), "refuted": ("no", "red"), "equal": ("equal", "cyan")}
OPEN = ("open", "yellow")


@dataclass(frozen=True)
class Judgement:
    """A claim and what is known of it.

    Attributes:
        claim: with its standing.
        verdict: None if there is none yet, or none at all.
        reason: why there is none, in words; empty if there is one.
        bootstrap: the 95 % BCa bootstrap interval of the difference, which no verdict uses.
        seeds: the number of seeds that the verdict rests on.
    """

    claim: PlannedClaim
    verdict: Verdict | None
    reason: str = ""
    bootstrap: tuple[float, float] = (-np.inf, np.inf)
    seeds: int = 0

    @property
    def mark(self) -> str:
        """The verdict in a word: yes, no, equal or open."""
        return MARKS.get(self.outcome, OPEN)[0]

    @property
    def colour(self) -> str:
        """The colour of the mark."""
        return MARKS.get(self.outcome, OPEN)[1]

    @property
    def outcome(self) -> str:
        """The verdict's outcome; "no verdict" without one."""
        return self.verdict.outcome if self.verdict else "no verdict"

    @property
    def sentence(self) -> str:
        """The claim in words with what came out."""
        return self.verdict.sentence if self.verdict else f"{self.claim.words}: {self.reason}"

    @property
    def standing(self) -> str:
        """What the claim's standing is, in words."""
        return self.claim.standing_in_words

    @property
    def by(self) -> str:
        """By how much the arm that should be better is, in words; empty without a verdict."""
        return margin(self.verdict.difference, self.claim.digits) if self.verdict else ""

    @property
    def details(self) -> str:
        """The numbers behind the verdict, in words; empty without one."""
        if not self.verdict:
            return ""
        low, high = self.bootstrap
        v, digits = self.verdict, self.claim.digits
        parts = [f"{self.by[:1].upper()}{self.by[1:]}, better in {v.difference.improvement:.0%} of all pairs of seeds"]
        if np.isfinite(low):
            parts += [
                f"p = {v.p_adjusted:.2g} after Holm ({v.rule})",
                f"bootstrap interval [{low:+.{digits}f}, {high:+.{digits}f}]",
            ]
        return "; ".join(parts)

    @property
    def line(self) -> str:
        """All of it in one line, as tags and descriptions have it."""
        return f"{self.sentence} [{self.standing}]"

    @property
    def row(self) -> dict[str, Any]:
        """All of it as JSON values."""
        claim, verdict = self.claim, self.verdict
        shared = {
            "claim": claim.words,
            "better": claim.better,
            "worse": claim.worse,
            "metric": claim.metric,
            "margin": claim.margin,
            "standing": claim.standing,
            "results_known": claim.known,
            "standing_in_words": self.standing,
            "outcome": self.outcome,
            "sentence": self.sentence,
            "seeds": self.seeds,
        }
        if not verdict:
            return shared
        d = verdict.difference
        numbers = {
            "difference": d.mean,
            "low": d.low,
            "high": d.high,
            "p_holm": verdict.p_adjusted,
            "p_equal": verdict.p_equal,
            "improvement": d.improvement,
            "detectable": verdict.detectable,
            "seeds_for_margin": verdict.seeds_for_margin,
            "bootstrap_low": self.bootstrap[0],
            "bootstrap_high": self.bootstrap[1],
        }
        return shared | {"rule": verdict.rule} | {k: finite(v) for k, v in numbers.items()}


def finite(value: Any) -> Any:
    """Return a number, or None for one that JSON has no word for."""
    return value if value is None or np.isfinite(value) else None


def margin(difference: Paired, digits: int) -> str:
    """Return in words by how much the arm that should be better is; a negative bound is on the other side."""
    word = "better"
    if difference.mean < 0:
        word, difference = "worse", replace(difference, mean=-difference.mean, low=-difference.high, high=-difference.low)
    bounds = f" [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]" if np.isfinite(difference.low) else ""
    return f"{word} by {difference.mean:+.{digits}f}{bounds}"


def planned_claims(record: PlanRecord, study: Ablation, name: str, budget: str) -> list[PlannedClaim]:
    """Return the claims of a record; without one those of the study itself, whose standing nobody can know."""
    if record.plans:
        return claims_of(record)
    virtual = PlanRecord().and_plan(stated(study, name=name, budget=budget, question="", data={}), {})
    standing = BROKEN if record.faults else UNPLANNED
    return [replace(claim, standing=standing) for claim in claims_of(virtual)]


def judgements(claims: Sequence[PlannedClaim], records: Mapping[str, Record], failures: Mapping[str, str]) -> list[Judgement]:
    """Return the judgements of all claims, which are one family, in their order.

    A verdict is given at looks alone: once every trial of the seeds of a look has a result or has failed for good. A claim that
    has none yet is a member of the family all the same.
    """
    found = [_at_look(claim, records, failures) for claim in claims]
    verdicts = judge([judged for judged, _ in found])
    result = []
    for claim, (judged, reason), verdict in zip(claims, found, verdicts, strict=True):
        if reason or verdict.outcome == "too early":
            result.append(Judgement(claim, None, reason or "no verdict yet"))
            continue
        low, high = bootstrap_interval(judged.better, judged.worse)
        if claim.direction == "lower":
            low, high = -high, -low
        result.append(Judgement(claim, verdict, "", (low, high), len(judged.better)))
    return result


def looks_taken(found: Sequence[Judgement]) -> dict[str, int]:
    """Return the number of seeds of each look that verdicts rest on, by the name of what is compared.

    A planned look counts as planned, though trials of it have failed.
    """
    taken = {}
    for j in found:
        if j.verdict:
            reached = [n for n in j.claim.looks if n >= j.seeds]
            taken[j.claim.name] = reached[0] if j.claim.as_planned and reached else j.seeds
    return taken


def all_settled(found: Sequence[Judgement]) -> bool:
    """Return whether every claim that is not withdrawn has a verdict that further planned looks would not change."""
    return all(j.verdict is not None and settled(j.verdict) for j in found if j.claim.standing != "withdrawn")


def _at_look(claim: PlannedClaim, records: Mapping[str, Record], failures: Mapping[str, str]) -> tuple[Claim, str]:
    """Return a claim with its scores at the last look that is reached, and why it has none, in words, if it has none."""
    pairs: dict[int, tuple[float, float]] = {}
    for seed in claim.seeds:
        found = [records[cells[seed]].metrics.get(claim.metric) for cells in claim.cells if cells.get(seed) in records]
        scores = [x for x in found if x is not None and np.isfinite(x)]
        if len(scores) == 2:
            pairs[seed] = (scores[0], scores[1])

    def over(seed: int) -> bool:
        return all(cells.get(seed) in records or cells.get(seed) in failures for cells in claim.cells)

    def usable(seeds: Sequence[int]) -> int:
        return sum(seed in pairs for seed in seeds)

    reached = [n for n in claim.due if all(map(over, claim.due_seeds[:n]))]
    planned = [n for n in claim.looks if all(map(over, claim.seeds[:n]))]
    looks = tuple(dict.fromkeys(usable(claim.seeds[:n]) if n in planned else n for n in claim.looks))
    chosen = claim.seeds[: planned[-1]] if claim.as_planned and planned else claim.seeds
    used = [pairs[seed] for seed in chosen if seed in pairs]
    reason = ""
    if not reached:
        done = sum(map(over, claim.due_seeds))
        due = ", ".join(map(str, claim.due))
        reason = f"no verdict yet, {done} of {len(claim.due_seeds)} seeds are done and the look is at {due}"
    elif not used:
        reason = "no verdict, no seed has the score in both arms"
    judged = Claim(
        words=claim.words,
        better=[a for a, _ in used] if not reason else [],
        worse=[b for _, b in used] if not reason else [],
        direction=claim.direction,
        looks=looks,
        unplanned=not claim.as_planned and not reason,
        margin=claim.margin,
        digits=claim.digits,
    )
    return judged, reason
