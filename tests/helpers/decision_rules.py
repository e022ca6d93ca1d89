"""Rules of decision held against each other on simulated studies: how often they claim what is not so, and what they see.

    python tests/helpers/decision_rules.py [--studies 10000] [--all]

prints the tables of docs/science.md ("Verdicts") in Markdown; `--all` every number of seeds from 5 to 20. Differences are those of
two arms with equal distributions, shifted and scaled to a standard deviation of 1: normal, Student's t with 3 degrees of freedom,
exponential ("skewed"), and, as a warning, uniform and two-point ones. Claims of a study are independent of one another. The shipped
rule is `harness.stats` itself; Wilcoxon, sign flips and the rule before are here because they lost.
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
        "unplanned: 6, then after every seed to 30": shipped(d, (6,), unplanned=True),
        "both: 6, 10, 16, then after every seed to 30": shipped(d, LOOKS, unplanned=True),
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
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.1f}"


def compare(rng: np.random.Generator, studies: int, seeds: Sequence[int]) -> None:
    """Print false claims and power of all rules at one look."""
    print(f"False claims in %, by n seeds, {studies} studies a number.\n")
    rows = []
    for claims in CLAIMS:
        found: dict[str, list[str]] = {rule: [] for rule in RULES}
        for kind in KINDS:
            for n in seeds:
                d = draw(kind, rng, (studies, claims, n))
                for rule, decide in RULES.items():
                    found[rule].append(percent(false_claims(decide(d))))
        rows += [[str(claims), rule, *values] for rule, values in found.items()]
    table(["claims", "rule", *(f"{kind} {n}" for kind in KINDS for n in seeds)], rows)

    few = max(500, studies // 5)
    for kind in KINDS:
        print(f"Power in %, {kind}: how often one difference among claims of nothing is shown, {few} studies a number.\n")
        rows = []
        for claims in CLAIMS:
            shown: dict[str, list[str]] = {rule: [] for rule in RULES}
            for n in seeds:
                noise = draw(kind, rng, (few, claims, n))
                for effect in EFFECTS:
                    d = noise + effect * (np.arange(claims) == 0)[:, None]
                    for rule, decide in RULES.items():
                        shown[rule].append(f"{100 * decide(d)[0][:, 0].mean():.0f}")
            rows += [
                [str(claims), rule, *(" ".join(v[i : i + len(EFFECTS)]) for i in range(0, len(v), len(EFFECTS)))]
                for rule, v in shown.items()
            ]
        table(["claims", "rule", *(f"n = {n}: {', '.join(map(str, EFFECTS))} sd" for n in seeds)], rows)


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
            found.setdefault("the rule before, after every seed from 6 to 30", []).append(percent(naive))
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
    print(f'"Equal" in %, {studies} studies a number; the margin in sd of the paired differences.\n')
    rows = []
    for kind in KINDS:
        for claims in CLAIMS:
            d = draw(kind, rng, (studies, claims, LAST))
            wrong = [
                called_equal(d[..., :n] + m, m, looks, unplanned=u).any(-1).mean()
                for m in (1, 2)
                for n, looks, u in ((6, (6,), False), (16, LOOKS, False), (LAST, (6,), True))
            ]
            right = [called_equal(d[..., :n], 1, (n,), unplanned=False)[:, 0].mean() for n in (6, 10, 16)]
            rows.append([kind, str(claims), *map(percent, wrong), *map(percent, right)])
    at = [f"at {m} sd: {way}" for m in (1, 2) for way in ("fixed 6", "planned", "25 looks")]
    table(["scores", "claims", *at, *(f"no difference, 1 sd, n = {n}" for n in (6, 10, 16))], rows)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000, help="simulated studies for each number (default 10000)")
    parser.add_argument("--all", action="store_true", help="every number of seeds from 5 to 20")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    compare(rng, arguments.studies, range(5, 21) if arguments.all else (6, 8, 12, 20))
    warn(rng, arguments.studies)
    look(rng, arguments.studies)
    equal(rng, arguments.studies)


if __name__ == "__main__":
    main()
