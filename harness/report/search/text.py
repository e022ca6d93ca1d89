"""What a search found, as sentences and tables. What its winner is worth on the test set is for the refit's verdict to say."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.queue import SearchTrial
from harness.queue.importances import FEWEST
from harness.report.search.results import SearchResults, way
from harness.study import SCORES, Ablation

MOST = 10  # trials that a table shows; all are in search.csv
NO_REFIT = "The best has not been trained again on new seeds yet, so nothing is known of the test set."
NO_BEST = "The search has no best trial that could be tested against the base."
THE_BASE = "The best trial is the base itself: there is nothing to test."


def say(value: Any) -> str:
    """A parameter to read."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def score(objective: str, value: float) -> str:
    """A value to read."""
    return f"{value:,.{SCORES[objective].digits}f}" if np.isfinite(value) else "-"


def point(a: SearchTrial) -> str:
    """A trial's parameters in one line."""
    return ", ".join(f"{name} = {say(v)}" for name, v in a.params.items())


def sentences(s: SearchResults) -> list[str]:
    """What there is to say, in the order of asking: how much was spent, what it brought, what went wrong."""
    return [_asked(s), *_spent(s), *_best(s), *_constraints(s), *_matters(s), *_failed(s)]


def tested(s: SearchResults, refit: Ablation) -> list[str]:
    """What was trained again on new seeds, or why there is nothing to judge."""
    winners = [name for name in refit.arms if name != "base"]
    if not winners:
        return [THE_BASE if s.best else NO_BEST]
    return [
        f"{name}: the base with {', '.join(f'{field} = {say(v)}' for field, v in refit.arms[name].items())}." for name in winners
    ]


def _asked(s: SearchResults) -> str:
    wanted = s.search.budgets[s.budget].trials
    states = Counter(a.state for a in s.history)
    pruned = [f"{states['PRUNED']} pruned by {s.search.pruner.name}"] if s.search.pruner else []
    under_way = states["RUNNING"] + states["WAITING"]
    counted = [f"{states['COMPLETE']} complete", *pruned, f"{states['FAIL']} failed"]
    counted += [f"{under_way} under way"] if under_way else []
    return f"{len(s.history)} of {wanted} trials asked for by {s.sampler} (Optuna {s.optuna}): {', '.join(counted)}."


def _spent(s: SearchResults) -> list[str]:
    over = [*s.those("COMPLETE"), *s.those("PRUNED")]
    if s.search.pruner is None or not over:
        return []
    spent = sum(map(s.epochs, over))
    whole = len(over) * s.search.budgets[s.budget].epochs * len(s.search.seeds)
    return [f"{spent:,} epochs spent; without pruning the same trials take {whole:,} ({1 - spent / whole:.0%} saved)."]


def _best(s: SearchResults) -> list[str]:
    quality = s.search.quality
    if not s.best:
        broken = "No complete trial keeps the constraints" if s.those("COMPLETE") else "No trial is complete"
        return [f"{broken}, so there is no best one."]
    label = SCORES[quality].label
    if not s.several:
        top = s.best[0]
        over = f", mean over {len(s.search.seeds)} seeds" if s.over_seeds else ""
        return [f"Best: trial #{top.number}, {label} {score(quality, s.value(top, quality))}{over}, at {point(top)}."]
    names = " and ".join(SCORES[o].label for o in s.search.objectives)
    said = f"{len(s.best)} trials are beaten by no other in {names} together (the front)."
    if len(s.best) == 1:
        said = f"Trial #{s.best[0].number} beats all others in {names} together, or equals them."
    ends = [max(s.best, key=lambda a: way(o) * s.value(a, o)) for o in s.search.objectives]
    each = [
        f"Best {SCORES[o].label}: trial #{a.number}, {score(o, s.value(a, o))}, at {point(a)}."
        for o, a in zip(s.search.objectives, ends, strict=True)
    ]
    return [said, *each]


def _constraints(s: SearchResults) -> list[str]:
    complete = s.those("COMPLETE")
    if not s.search.constraints or not complete:
        return []
    broken = sum(not a.feasible for a in complete)
    return [
        f"{broken} of {len(complete)} complete trials break a constraint ({s.search.constraints_in_words}); none of them is chosen."
    ]


def _matters(s: SearchResults) -> list[str]:
    if len(s.parameters) < 2:
        return []
    if s.importances:
        return [f"What matters: {', '.join(f'{name} {share:.0%}' for name, share in s.importances.items())}."]
    if len(s.those("COMPLETE")) < FEWEST:
        return [f"Too few trials are complete to say which parameter matters: {FEWEST} are needed."]
    return ["No parameter sets the best trials apart from the others."]


def _failed(s: SearchResults) -> list[str]:
    reasons: dict[str, list[int]] = {}
    for a in s.those("FAIL"):
        reasons.setdefault(a.why.split(":")[0].strip() or "no reason on record", []).append(a.number)
    return [f"Failed, {why}: {', '.join(f'#{n}' for n in numbers)}." for why, numbers in reasons.items()]


def top(s: SearchResults) -> tuple[str, list[SearchTrial]]:
    """What a table of the best is called, and its trials: of a long front some from end to end."""
    if not s.several or not s.best:
        return "The best trials", s.ranked[:MOST]
    whole = "The front: trials that no other beats in every objective"
    return whole if len(s.best) <= MOST else f"The front, {MOST} of its {len(s.best)} trials from end to end", spread(s.best, MOST)


def spread(trials: Sequence[SearchTrial], most: int) -> list[SearchTrial]:
    """All of them, or so many from end to end."""
    return [trials[i] for i in dict.fromkeys(np.linspace(0, len(trials) - 1, min(most, len(trials))).round().astype(int))]


def headings(s: SearchResults, parameters: Sequence[str]) -> list[str]:
    """Of the table of the best."""
    arrows = {"higher": " ↑", "lower": " ↓"}
    values = [SCORES[o].label + arrows[SCORES[o].better] for o in s.search.objectives]
    return ["trial", *values, *parameters, *(["feasible"] if s.search.constraints else [])]


def rows(s: SearchResults, trials: Sequence[SearchTrial], parameters: Sequence[str]) -> list[list[str]]:
    """A row per trial; a dash where it has no such parameter."""
    return [
        [
            f"#{a.number}",
            *(score(o, s.value(a, o)) for o in s.search.objectives),
            *(say(a.params[p]) if p in a.params else "-" for p in parameters),
            *([("yes" if a.feasible else "no")] if s.search.constraints else []),
        ]
        for a in trials
    ]


def table(s: SearchResults) -> pd.DataFrame:
    """Every trial, for search.csv."""
    return pd.DataFrame(
        [
            {
                "number": a.number,
                "state": a.state,
                **{p: a.params.get(p) for p in s.parameters},
                **{o: s.value(a, o) if a.state == "COMPLETE" else None for o in s.search.objectives},
                "feasible": a.feasible if a.state == "COMPLETE" else None,
                "epochs": s.epochs(a) if a.state in ("COMPLETE", "PRUNED") else None,
                "runs": " ".join(filter(None, a.runs)),
                "reason": a.why,
            }
            for a in s.history
        ]
    ).convert_dtypes()
