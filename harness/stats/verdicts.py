"""Verdicts on claims that one arm beats another, judged together from the scores of paired seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.stats.paired import ALPHA, Paired, paired


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim "a beats b".

    Attributes:
        outcome: "confirmed", "refuted" (the reverse is shown) or "not shown".
        sentence: The claim in words, with its outcome.
        difference: a - b by seed, or b - a if lower scores are better.
        p_adjusted: The p-value of the claim after Holm's correction over all claims.
    """

    outcome: str
    sentence: str
    difference: Paired
    p_adjusted: float


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values in the order of p (Holm, 1979, https://www.jstor.org/stable/4615733).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, running = [float("nan")] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, (len(p) - rank) * p[i])
        adjusted[i] = min(1.0, running)
    return adjusted


def judge(claims: Sequence[tuple[str, Sequence[float], Sequence[float], str]]) -> list[Verdict]:
    """Return the verdicts on claims that are judged together, in their order.

    A claim is confirmed if its p-value is below 0.05 after Holm's correction over all claims and the interval of its difference
    excludes 0. It is refuted if both hold for the reverse claim.

    Args:
        claims: For each claim its words, the scores by seed of the arm that is claimed to be better, those of the other arm in the
            same order of seeds, and "higher" or "lower", whichever is better.
    """
    differences = [paired(a, b) if better == "higher" else paired(b, a) for _, a, b, better in claims]
    greater, less = holm([d.p_greater for d in differences]), holm([d.p_less for d in differences])
    words = [c[0] for c in claims]
    return [_verdict(*claim, len(claims)) for claim in zip(words, differences, greater, less, strict=True)]


def _verdict(words: str, d: Paired, p: float, p_reverse: float, claims: int) -> Verdict:
    """Return the verdict on one of so many claims, given its difference and the adjusted p-values of it and of its reverse."""
    seeds = f"{d.n} seed{'s' * (d.n != 1)}"
    needed = next(n for n in range(2, 64) if 0.5**n * claims < ALPHA)
    if p < ALPHA and d.low > 0:
        return Verdict("confirmed", f"{words}: confirmed with {seeds}", d, p)
    if p_reverse < ALPHA and d.high < 0:
        return Verdict("refuted", f"{words}: no, the reverse holds with {seeds}", d, p)
    if d.n < needed:
        return Verdict("not shown", f"{words}: no verdict, {seeds} cannot show it ({needed} could)", d, p)
    return Verdict("not shown", f"{words}: no difference shown with {seeds}", d, p)
