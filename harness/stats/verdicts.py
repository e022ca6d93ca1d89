"""Verdicts on claims that one arm beats another, judged together from the scores of paired seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.stats.paired import ALPHA, Paired, paired
from harness.stats.power import detectable, seeds_for_equality, seeds_needed
from harness.stats.pvalues import FEWEST, flat, holm, one_sided

RULE = (
    "Confirmed, or the reverse, takes a paired t test at the planned numbers of seeds; after looks that nobody planned a test that "
    "holds for any number of them may show it too. Equal takes two one-sided tests at the margin. All hold at 0.05 after Holm's "
    "correction over all claims and both sides."
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The claim "this arm beats that one", with the scores of both.

    Attributes:
        words: The claim in words, such as "bce beats mse on test squared error".
        better: Scores by seed of the arm that is claimed to be better, in the order in which seeds were planned; may be empty.
        worse: Those of the other arm, for the same seeds in the same order.
        direction: "higher" or "lower", whichever is better.
        looks: The planned looks: numbers of seeds, ascending.
        unplanned: Whether a verdict was or is computed at any other number of seeds.
        margin: A difference below it counts as none; in the score's unit. None if equality is not asked for.
        unit: The score's unit, for sentences.
        digits: Decimals of the score, for sentences.
    """

    words: str
    better: Sequence[float]
    worse: Sequence[float]
    direction: str
    looks: tuple[int, ...]
    unplanned: bool = False
    margin: float | None = None
    unit: str = ""
    digits: int = 3

    @property
    def reached(self) -> int:
        """How many of the planned looks there are seeds for."""
        return sum(look <= len(self.better) for look in self.looks)

    @property
    def judged(self) -> int:
        """The number of seeds that the verdict rests on: without unplanned looks, those of the last look that was reached."""
        return self.looks[self.reached - 1] if self.reached and not self.unplanned else len(self.better)

    @property
    def scores(self) -> tuple[Sequence[float], Sequence[float]]:
        """The scores that the verdict rests on, the ones that are claimed to be greater first."""
        better, worse = self.better[: self.judged], self.worse[: self.judged]
        return (better, worse) if self.direction == "higher" else (worse, better)

    @property
    def differences(self) -> NDArray[np.float64]:
        """The differences that the verdict rests on, positive where the claim is right."""
        greater, less = self.scores
        differences: NDArray[np.float64] = np.asarray(greater, dtype=float) - np.asarray(less, dtype=float)
        return differences

    def amount(self, value: float) -> str:
        """Return a number in the score's decimals and unit."""
        return f"{value:.{self.digits}f} {self.unit}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on a claim.

    Attributes:
        outcome: "confirmed", "refuted" (the reverse is shown), "equal" (within the margin), "not shown" or "too early" (fewer seeds
            than the first planned look, and no unplanned one).
        sentence: The claim in words with its outcome; where nothing is shown, with what could have been seen.
        difference: The paired difference over the seeds that the verdict rests on, positive as claimed.
        p_adjusted: The two-sided p-value of a difference, after Holm's correction over all claims.
        p_equal: The p-value of equality within the margin, after Holm's correction over all claims with one; None without.
        rule: The test in words.
        detectable: The smallest difference that would have been shown with 80 % power, in the score's unit, from this claim's own
            spread and the number of claims; inf if no difference would, or if the spread is unknown.
        seeds_for_margin: How many seeds it takes, with 80 % power, to show a difference as large as the margin, and to show arms
            without a difference to be equal; None without a margin or with an unknown spread.
    """

    outcome: str
    sentence: str
    difference: Paired
    p_adjusted: float
    p_equal: float | None
    rule: str
    detectable: float
    seeds_for_margin: int | None


def judge(claims: Sequence[Claim]) -> list[Verdict]:
    """Return the verdicts on claims that are judged together, in their order.

    A claim is confirmed if its one-sided p-value, doubled because the reverse would be a finding as well, is below 0.05 after
    Holm's correction over all claims; it is refuted if this holds of the reverse. Both correct for the claim's looks (`one_sided`).
    It is equal if neither holds and two one-sided tests, corrected likewise, place the difference inside the margin (Schuirmann,
    1987, https://doi.org/10.1007/BF01068419). So studies in which no arm differs show a difference in at most 5 %, and studies
    whose arms differ by the margin or more call some of them equal in at most 5 %. A claim without results has a p-value of 1.
    """
    differences = [c.differences for c in claims]
    better = holm([min(1, 2 * _p(c, d)) for c, d in zip(claims, differences, strict=True)])
    worse = holm([min(1, 2 * _p(c, -d)) for c, d in zip(claims, differences, strict=True)])
    margins = {i: c.margin for i, c in enumerate(claims) if c.margin is not None}
    inside = [max(_p(claims[i], differences[i] + m), _p(claims[i], m - differences[i])) for i, m in margins.items()]
    equal = dict(zip(margins, holm(inside), strict=True))
    return [
        _verdict(c, d, p=(better[i], worse[i], equal.get(i)), family=(len(claims), len(margins)))
        for i, (c, d) in enumerate(zip(claims, differences, strict=True))
    ]


def settled(verdict: Verdict) -> bool:
    """Return whether planned looks may stop here: more seeds are no longer needed for a verdict."""
    return verdict.outcome in ("confirmed", "refuted", "equal")


def _p(claim: Claim, differences: NDArray[np.float64]) -> float:
    """Return the one-sided p-value of "above 0" over a claim's looks."""
    return float(one_sided(differences, claim.looks, unplanned=claim.unplanned))


def _verdict(
    claim: Claim, differences: NDArray[np.float64], *, p: tuple[float, float, float | None], family: tuple[int, int]
) -> Verdict:
    """Return the verdict on one claim.

    Args:
        claim: The claim.
        differences: Those it rests on.
        p: The adjusted p-values of the claim, of its reverse and of equality.
        family: The number of claims, and of those with a margin.
    """
    difference = paired(*claim.scores)
    known = len(differences) > 1 and not flat(differences)
    spread = float(np.std(differences, ddof=1)) if known else 0.0
    seen = spread * detectable(claim.judged, claim.looks, claims=family[0], unplanned=claim.unplanned) if spread else np.inf
    needed = None
    if claim.margin is not None and spread:
        looks = len(claim.looks)
        needed = max(
            seeds_needed(claim.margin, spread, claims=family[0], looks=looks),
            seeds_for_equality(claim.margin, spread, claims=family[1], looks=looks),
        )
    outcome = _outcome(claim, difference, p)
    return Verdict(
        outcome=outcome,
        sentence=f"{claim.words}: {_finding(claim, outcome, p[2], seen, needed)}",
        difference=difference,
        p_adjusted=min(p[:2]),
        p_equal=p[2],
        rule=_rule(claim),
        detectable=seen,
        seeds_for_margin=needed,
    )


def _outcome(claim: Claim, difference: Paired, p: tuple[float, float, float | None]) -> str:
    """Return the outcome of a claim; a side that is shown counts as long as the mean over all seeds does not say the opposite."""
    if claim.reached == 0 and not claim.unplanned:
        return "too early"
    if p[0] < ALPHA and difference.mean > 0:
        return "confirmed"
    if p[1] < ALPHA and difference.mean < 0:
        return "refuted"
    return "equal" if p[2] is not None and p[2] < ALPHA else "not shown"


def _finding(claim: Claim, outcome: str, p_equal: float | None, seen: float, needed: int | None) -> str:
    """Return an outcome in words, with the number of seeds."""
    seeds = _seeds(claim.judged)
    within = f"within {claim.amount(claim.margin)}" if claim.margin is not None else ""
    also = f", and equal {within}" if p_equal is not None and p_equal < ALPHA else ""
    match outcome:
        case "too early":
            return f"too early, {seeds}; the first look is planned at {claim.looks[0]}"
        case "confirmed":
            return f"confirmed with {seeds}{also}"
        case "refuted":
            return f"no, the reverse holds with {seeds}{also}"
        case "equal":
            return f"equal {within} with {seeds}"
    if claim.judged < FEWEST:
        return f"no verdict, {seeds} cannot show it ({FEWEST} could)"
    margin = f"; {claim.amount(claim.margin)} would take {needed}" if claim.margin is not None and needed is not None else ""
    return f"no difference shown with {seeds}, {_visible(claim, seen)}{margin}"


def _visible(claim: Claim, seen: float) -> str:
    """Return in words what could have been seen."""
    if np.isfinite(seen):
        return f"which would have shown {claim.amount(seen)} (80 % power)"
    if flat(claim.differences):
        return "and without any spread nobody knows what they would have shown"
    return "which could not have shown any difference"


def _rule(claim: Claim) -> str:
    """Return the test in words."""
    looks = "planned looks at " + ", ".join(map(str, claim.looks))
    planned = f"{looks}: the {_ordinal(claim.reached)}" if claim.reached else f"{looks}: none yet"
    if len(claim.looks) == 1:
        (n,) = claim.looks
        planned = f"paired t at {n} planned seed{'s' * (n != 1)}" if claim.reached else "no planned look yet"
    return f"a test for any number of looks, {_seeds(claim.judged)}, and {planned}" if claim.unplanned else planned


def _seeds(n: int) -> str:
    """Return a number of seeds in words."""
    return f"{n} seed{'s' * (n != 1)}"


def _ordinal(n: int) -> str:
    """Return 1st, 2nd, 3rd, 4th ..."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"
