"""The verdicts of a study as everything shows them: claims with their standing, judged together at the looks that are due."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.plans import PlannedClaim, PlanRecord, Standing, claims_of, stated
from harness.scores import diverged
from harness.stats import Claim, Paired, Verdict, bootstrap_interval, judge, settled
from harness.study import Ablation
from harness.tracking import Record

MARKS = {"confirmed": ("yes", "green"), "refuted": ("no", "red"), "equal": ("equal", "cyan")}
OPEN = ("open", "yellow")


@dataclass(frozen=True, kw_only=True)
class Basis:
    """The scores of a claim at the look that is due.

    Attributes:
        better, worse: by seed, of the seeds for which both arms have the score.
        looks: the planned looks, those that are reached as the number of seeds that have the score.
        look: the number of seeds of the look, with those that have no score.
        diverged: the number of seeds of which a trial diverged.
        why_none: why there is no verdict, in words; empty if there is one.
    """

    better: Sequence[float] = ()
    worse: Sequence[float] = ()
    looks: tuple[int, ...] = ()
    look: int = 0
    diverged: int = 0
    why_none: str = ""

    @property
    def reservations(self) -> list[str]:
        """What is to be said beside a verdict that rests on these scores."""
        missing, words = self.look - len(self.better), []
        if missing:
            words.append(f"{missing} of {self.look} seeds have no score")
        if self.diverged:
            words.append(f"{self.diverged} of {len(self.better)} seeds diverged")
        return words


NO_BASIS = Basis()


@dataclass(frozen=True)
class Judgement:
    """A claim and what is known of it.

    Attributes:
        claim: with its standing.
        verdict: None if there is none yet, or none at all.
        reason: why there is none, in words; empty if there is one.
        bootstrap: the 95 % BCa bootstrap interval of the difference, which no verdict uses.
        basis: the scores that it rests on.
    """

    claim: PlannedClaim
    verdict: Verdict | None
    reason: str = ""
    bootstrap: tuple[float, float] = (-np.inf, np.inf)
    basis: Basis = NO_BASIS

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
        if not self.verdict:
            return f"{self.claim.words}: {self.reason}"
        return "; ".join([self.verdict.sentence, *self.basis.reservations])

    @property
    def seeds(self) -> int:
        """The number of seeds that the verdict rests on; 0 without one."""
        return len(self.basis.better) if self.verdict else 0

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
        if self.verdict.difference.mean < 0:
            low, high = -high, -low  # as the other interval of these words
        v, digits = self.verdict, self.claim.digits
        pairs = f", better in {v.difference.improvement:.0%} of all pairs of seeds" if v.difference.n > 1 else ""
        parts = [f"{self.by[:1].upper()}{self.by[1:]}{pairs}"]
        if np.isfinite(low):
            parts += [
                f"p = {v.p_adjusted:.2g} after Holm ({v.rule})",
                f"bootstrap interval {bounds(low, high, digits)}",
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
            "seeds_planned": self.basis.look,
            "seeds_diverged": self.basis.diverged,
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
    word, low, high = "better", difference.low, difference.high
    if difference.mean < 0:
        word, low, high = "worse", -high, -low
    interval = f" {bounds(low, high, digits)}" if np.isfinite(low) else ""
    return f"{word} by {abs(difference.mean):.{digits}f}{interval}"


def bounds(low: float, high: float, digits: int) -> str:
    """Return an interval as words have it: with signs where it has 0 in it, and without where both bounds are on one side."""
    sign = "+" if low <= 0 <= high else ""
    return f"[{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def planned_claims(record: PlanRecord, study: Ablation, name: str, budget: str) -> list[PlannedClaim]:
    """Return the claims of a record; without a sound one those of the study itself, whose standing nobody can know."""
    if record.plans and not record.faults:
        return claims_of(record)
    virtual = PlanRecord().and_plan(stated(study, name=name, budget=budget, question="", data={}), {})
    standing = Standing.BROKEN if record.faults else Standing.NONE
    return [replace(claim, standing=standing) for claim in claims_of(virtual)]


def judgements(
    claims: Sequence[PlannedClaim], records: Mapping[str, Record], failures: Mapping[str, str], most: int | None = None
) -> list[Judgement]:
    """Return the judgements of all claims, which are one family, in their order.

    A verdict is given at looks alone: once every trial of the seeds of a look has a result or has failed for good. A claim that
    has none yet is a member of the family all the same.

    Args:
        claims: of one study.
        records: the finished runs by cell id.
        failures: the reasons of trials that failed for good, by cell id.
        most: the number of seeds of the present plan that looks have come to; None for all.
    """
    found = [_basis(claim, records, failures, most) for claim in claims]
    verdicts = judge([_claim(claim, basis) for claim, basis in zip(claims, found, strict=True)])
    result = []
    for claim, basis, verdict in zip(claims, found, verdicts, strict=True):
        if basis.why_none or verdict.outcome == "too early":
            result.append(Judgement(claim, None, basis.why_none or "no verdict yet"))
            continue
        low, high = bootstrap_interval(basis.better, basis.worse)
        if claim.direction == "lower":
            low, high = -high, -low
        result.append(Judgement(claim, verdict, "", (low, high), basis))
    return result


def looks_taken(found: Sequence[Judgement]) -> dict[str, int]:
    """Return the number of seeds of each look that verdicts rest on, by the name of what is compared."""
    return {j.claim.name: j.basis.look for j in found if j.verdict}


def all_settled(found: Sequence[Judgement]) -> bool:
    """Return whether every claim that is not withdrawn has a verdict that further planned looks would not change."""
    return all(j.verdict is not None and settled(j.verdict) for j in found if j.claim.standing != Standing.WITHDRAWN)


def _claim(claim: PlannedClaim, basis: Basis) -> Claim:
    """Return a claim with the scores that its verdict rests on."""
    return Claim(
        words=claim.words,
        better=basis.better,
        worse=basis.worse,
        direction=claim.direction,
        looks=basis.looks,
        unplanned=not claim.as_planned and not basis.why_none,
        margin=claim.margin,
        digits=claim.digits,
    )


def _basis(claim: PlannedClaim, records: Mapping[str, Record], failures: Mapping[str, str], most: int | None) -> Basis:
    """Return the scores of a claim at the last look that is reached.

    A claim whose seeds or looks were changed after results is judged over all seeds that were ever planned for it; while its new
    look is not reached, at the last look of the plan before.
    """
    trials = {seed: [records.get(cells.get(seed, "")) for cells in claim.cells] for seed in claim.seeds}
    scored: dict[int, list[float]] = {}
    for seed, pair in trials.items():
        found = [r.metrics[claim.metric] for r in pair if r is not None and claim.metric in r.metrics]
        if len(found) == 2 and np.isfinite(found).all():
            scored[seed] = found

    def over(seed: int) -> bool:
        return all(cells.get(seed) in records or cells.get(seed) in failures for cells in claim.cells)

    planned = [n for n in claim.looks if all(map(over, claim.seeds[:n])) and (most is None or n <= most or not claim.as_planned)]
    due = [n for n in claim.due if all(map(over, claim.due_seeds[:n])) and (most is None or n <= most)]
    looks = tuple(dict.fromkeys(sum(s in scored for s in claim.seeds[:n]) if n in planned else n for n in claim.looks))
    chosen: Sequence[int] = claim.seeds[: planned[-1]] if planned else ()
    if due and not claim.as_planned:
        ahead = claim.due_seeds[due[-1] :]
        chosen = [seed for seed in claim.seeds if seed not in ahead]
    used = [seed for seed in chosen if seed in scored]
    why_none = ""
    if not chosen:
        done = sum(map(over, claim.due_seeds))
        at = ", ".join(map(str, claim.due))
        why_none = f"no verdict yet, {done} of {len(claim.due_seeds)} seeds are done and the look is at {at}"
    elif not used:
        why_none = "no verdict, no seed has the score in both arms"
    return Basis(
        better=[scored[seed][0] for seed in used],
        worse=[scored[seed][1] for seed in used],
        looks=looks,
        look=len(chosen),
        diverged=sum(any(r is not None and diverged(r.metrics) for r in trials[seed]) for seed in used),
        why_none=why_none,
    )
