"""Rules of decision held against each other on simulated studies: how often they claim what is not so, and what they see.

    python tests/helpers/decision_rules.py [--studies 10000] [--all]

prints the tables of docs/science.md ("Verdicts") in Markdown; `--all` for every number of seeds from 5 to 20 and five differences.
Simulated are differences of two arms with equal distributions, shifted and scaled to a standard deviation of 1: normal, Student's t
with 3 degrees of freedom, exponential ("skewed"), and, as a warning, uniform and two-point ones. Claims of a study are independent
of one another. The shipped rule is `harness.stats` itself; Wilcoxon, sign flips and the rule before are here because they lost.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from harness.stats import ALPHA
from harness.stats.pvalues import holm_last_axis, one_sided, student

Array = NDArray[np.float64]
KINDS = ("normal", "t(3)", "skewed")
LIGHT = ("uniform", "two-point")
CLAIMS = (1, 3, 6)
EFFECTS = (0.5, 1, 1.5, 2, 3)
LOOKS = (6, 10, 16)
LAST = 30  # seeds: a planned look at 6 and one after every further seed are 25 looks
EXACT = 10  # seeds up to which sign flips are enumerated; beyond, 2,047 random ones and the observed one


def draw(kind: str, rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Return differences a - b of arms with equal distributions, with a standard deviation of 1."""
    match kind:
        case "normal":
            return rng.normal(size=shape)
        case "t(3)":
            return (rng.standard_t(3, shape) - rng.standard_t(3, shape)) / 6**0.5
        case "skewed":
            return (rng.exponential(size=shape) - rng.exponential(size=shape)) / 2**0.5
        case "uniform":
            return rng.uniform(-(3**0.5), 3**0.5, shape)
        case "two-point":  # with a little noise, as of a score that jumps
            return rng.choice([-1.0, 1.0], shape) + rng.normal(0, 0.01, shape)
    raise ValueError(kind)


# ------------------------------------------------------------------------------------------------ tests at one look


@cache
def rank_sums(n: int) -> Array:
    """Return the exact tail P(W >= w) of the signed-rank sum of n differences, for w = 0 .. n (n + 1) / 2."""
    counts = np.ones(1)
    for rank in range(1, n + 1):
        counts = np.concatenate([counts, np.zeros(rank)]) + np.concatenate([np.zeros(rank), counts])
    return (counts[::-1].cumsum()[::-1]) / 2.0**n


def wilcoxon(d: Array) -> Array:
    """Return the one-sided p-values of the exact signed-rank test, for differences (..., n) without ties."""
    ranks = np.abs(d).argsort(-1).argsort(-1) + 1
    return rank_sums(d.shape[-1])[(ranks * (d > 0)).sum(-1)]


@cache
def signs(n: int) -> Array:
    """Return sign patterns, (patterns, n), the first of which changes nothing: all of them for few seeds, else random ones."""
    if n <= EXACT:
        return 1.0 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    return np.vstack([np.ones(n), np.random.default_rng(0).choice([-1.0, 1.0], (2047, n))])


def flips(d: Array) -> Array:
    """Return the one-sided p-values of the permutation test of the mean under changes of sign, for differences (..., n)."""
    rows = d.reshape(-1, d.shape[-1])
    p = [((part @ signs(d.shape[-1]).T) >= part.sum(-1, keepdims=True) - 1e-9).mean(-1) for part in np.array_split(rows, 20)]
    return np.concatenate(p).reshape(d.shape[:-1])


def both_sides(p: Callable[[Array], Array], d: Array, level: float = ALPHA) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which claims, (studies, claims), a one-sided p confirms and refutes at half the level each, under Holm."""
    better, worse = (holm_last_axis(np.minimum(1, 2 * p(side))) < level for side in (d, -d))
    return better, worse


def before(d: Array) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return what the rule before confirmed and refuted: Wilcoxon under Holm at 5 % a side, if Student's interval leaves out 0."""
    t = np.minimum(student(d), student(-d)) < ALPHA / 2
    return (holm_last_axis(wilcoxon(d)) < ALPHA) & t & (d.mean(-1) > 0), (holm_last_axis(wilcoxon(-d)) < ALPHA) & t & (
        d.mean(-1) < 0
    )


def shipped(d: Array, looks: Sequence[int], *, unplanned: bool = False) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return what the rule of `harness.stats.judge` confirms and refutes, but for its look at the sign of the mean.

    p-values over looks only fall as seeds come, so what all seeds show is what any look before them showed.
    """
    return both_sides(lambda side: one_sided(side, looks, unplanned=unplanned), d)


RULES: dict[str, Callable[[Array], tuple[NDArray[np.bool_], NDArray[np.bool_]]]] = {
    "before": before,
    "Wilcoxon": lambda d: both_sides(wilcoxon, d),
    "sign flips": lambda d: both_sides(flips, d),
    "paired t": lambda d: both_sides(student, d),
    "**shipped**": lambda d: shipped(d, (d.shape[-1],)),
}


def false_claims(decided: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> float:
    """Return the share of studies of nothing that confirm or refute a claim."""
    return float((decided[0] | decided[1]).any(-1).mean())


# ------------------------------------------------------------------------------------------------ looks and equality


def ways_to_look(d: Array) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return what is confirmed and refuted in 25 looks at differences (studies, claims, 30), by how they came about."""
    return {
        "fixed: one look at 6": shipped(d[..., :6], (6,)),
        "planned: 6, 10, 16": shipped(d[..., :16], LOOKS),
        "unplanned: 6, then every seed to 30": shipped(d, (6,), unplanned=True),
        "both: 6, 10, 16, every seed to 30": shipped(d, LOOKS, unplanned=True),
    }


def seeds_used(d: Array) -> tuple[float, float]:
    """Return the share of single claims, (studies, 1, n), that planned looks confirm, and the mean number of seeds they take."""
    hits = [shipped(d[..., :look], LOOKS)[0][:, 0] for look in LOOKS]
    taken = np.select(hits, LOOKS, LOOKS[-1])
    return float(hits[-1].mean()), float(taken.mean())


def called_equal(d: Array, margin: float, looks: Sequence[int], *, unplanned: bool) -> NDArray[np.bool_]:
    """Return which claims, (studies, claims), are called equal within a margin."""
    sides = [one_sided(side, looks, unplanned=unplanned) for side in (d + margin, margin - d)]
    return holm_last_axis(np.maximum(*sides)) < ALPHA


# ------------------------------------------------------------------------------------------------ tables


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    for row in (headings, ["---"] * len(headings), *rows):
        print("|" + "|".join(row) + "|")
    print(flush=True)


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f}"


def compare(rng: np.random.Generator, studies: int, seeds: Sequence[int], effects: Sequence[float]) -> None:
    """Print false claims and power of all rules at one look, the three distributions in one cell."""
    rules = [(claims, rule) for claims in CLAIMS for rule in RULES]
    false: dict[tuple[int, str, int], list[str]] = {}
    for kind in KINDS:
        for claims in CLAIMS:
            for n in seeds:
                d = draw(kind, rng, (studies, claims, n))
                for rule, decide in RULES.items():
                    false.setdefault((claims, rule, n), []).append(percent(false_claims(decide(d))))
    print(f"False claims in %: {' / '.join(KINDS)}, {studies} studies a number.\n")
    headings = ["claims", "rule", *(f"n = {n}" for n in seeds)]
    table(headings, [[str(c), rule, *(" / ".join(false[c, rule, n]) for n in seeds)] for c, rule in rules])

    few = max(500, studies // 5)
    seen: dict[tuple[int, str, int, float], list[str]] = {}
    for kind in KINDS:
        for claims in CLAIMS:
            for n in seeds:
                noise = draw(kind, rng, (few, claims, n))
                for effect in effects:
                    d = noise + effect * (np.arange(claims) == 0)[:, None]
                    for rule, decide in RULES.items():
                        seen.setdefault((claims, rule, n, effect), []).append(f"{100 * decide(d)[0][:, 0].mean():.0f}")
    for effect in effects:
        print(
            f"Power in % to see {effect:g} sd in one claim while the others are of nothing: {' / '.join(KINDS)}, {few} studies.\n"
        )
        table(headings, [[str(c), rule, *(" / ".join(seen[c, rule, n, effect]) for n in seeds)] for c, rule in rules])


def warn(rng: np.random.Generator, studies: int) -> None:
    """Print false claims for light-tailed and two-point differences."""
    print(f"False claims in % where differences have light tails, {studies} studies a number.\n")
    rows = []
    for claims in CLAIMS:
        for rule in ("before", "sign flips", "paired t", "**shipped**"):
            rates = [false_claims(RULES[rule](draw(kind, rng, (studies, claims, n)))) for kind in LIGHT for n in (5, 6, 8, 10)]
            rows.append([str(claims), rule, *map(percent, rates)])
    table(["claims", "rule", *(f"{kind} {n}" for kind in LIGHT for n in (5, 6, 8, 10))], rows)


def look(rng: np.random.Generator, studies: int) -> None:
    """Print false claims of 25 looks, what planned looks save, and what looks that follow a planned one see."""
    print(f"False claims in % over all looks, {studies} studies a number.\n")
    found: dict[str, list[str]] = {}
    for kind in KINDS:
        for claims in CLAIMS:
            d = draw(kind, rng, (studies, claims, LAST))
            naive = np.any([np.any(before(d[..., :n]), 0).any(-1) for n in range(6, LAST + 1)], 0).mean()
            found.setdefault("before: after every seed, 6 to 30", []).append(percent(naive))
            for way, decided in ways_to_look(d).items():
                found.setdefault(way, []).append(percent(false_claims(decided)))
    table(["looks", *(f"{k} {c}" for k in KINDS for c in CLAIMS)], [[way, *values] for way, values in found.items()])

    print("One claim: power in % (and mean seeds of planned looks).\n")
    rows = []
    for kind in KINDS:
        for effect in EFFECTS[1:]:
            d = draw(kind, rng, (studies, 1, LAST)) + effect
            power, seeds = seeds_used(d[..., :16])
            fixed = [shipped(d[..., :n], (n,))[0].mean() for n in (6, 16)]
            extended = [shipped(d[..., :n], (6,), unplanned=True)[0].mean() for n in (10, 16, LAST)]
            rows.append([kind, str(effect), *map(percent, fixed), f"{percent(power)} ({seeds:.1f})", *map(percent, extended)])
    headings = ["scores", "sd", "fixed 6", "fixed 16", "planned 6, 10, 16", "6, extended to 10", "to 16", "to 30"]
    table(headings, rows)


def equal(rng: np.random.Generator, studies: int) -> None:
    """Print how often "equal" is said where the difference is the margin, and where there is none."""
    ways = {
        "one look at 6": (6, (6,), False),
        "planned: 6, 10, 16": (16, LOOKS, False),
        "6, then every seed to 30": (LAST, (6,), True),
    }
    wrong: dict[tuple[int, int, str], list[str]] = {}
    right: dict[tuple[int, int], list[str]] = {}
    for kind in KINDS:
        for claims in CLAIMS:
            d = draw(kind, rng, (studies, claims, LAST))
            for margin in (1, 2):
                for way, (n, looks, unplanned) in ways.items():
                    said = called_equal(d[..., :n] + margin, margin, looks, unplanned=unplanned)
                    wrong.setdefault((margin, claims, way), []).append(percent(said.any(-1).mean()))
            for n in (6, 10, 16):
                said = called_equal(d[..., :n], 1, (n,), unplanned=False)
                right.setdefault((claims, n), []).append(percent(said[:, 0].mean()))
    print(f'"Equal" in % where all differences are the margin: {" / ".join(KINDS)}, {studies} studies a number.\n')
    rows = [[f"{m} sd", str(c), *(" / ".join(wrong[m, c, way]) for way in ways)] for m in (1, 2) for c in CLAIMS]
    table(["margin", "claims", *ways], rows)
    print('"Equal" in % where there is no difference, margin 1 sd.\n')
    rows = [[str(c), *(" / ".join(right[c, n]) for n in (6, 10, 16))] for c in CLAIMS]
    table(["claims", *(f"n = {n}" for n in (6, 10, 16))], rows)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000, help="simulated studies for each number (default 10000)")
    parser.add_argument(
        "--all", action="store_true", help="every number of seeds from 5 to 20, differences of 0.5, 1, 1.5, 2, 3 sd"
    )
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    compare(rng, arguments.studies, *((range(5, 21), EFFECTS) if arguments.all else ((6, 8, 12, 20), (1, 2))))
    warn(rng, arguments.studies)
    look(rng, arguments.studies)
    equal(rng, arguments.studies)


if __name__ == "__main__":
    main()
