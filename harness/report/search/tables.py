"""The results of a search as sentences and tables."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import counted
from harness.queue import SearchTrial
from harness.queue.importances import FEWEST
from harness.report.search.results import SearchResults
from harness.scores import Score
from harness.study import Ablation

MOST_LISTED = 10  # trials in a table; search.csv has all of them
NO_REFIT = "The best has not been trained again on new seeds yet, so nothing is known of the test set."
NO_BEST = "The search has no best trial that could be tested against the base."
THE_BASE = "The best trial is the base itself: there is nothing to test."


def parameter_text(value: Any) -> str:
    """Return a parameter's value as text."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def value_text(objective: Score, value: float) -> str:
    """Return an objective's value as text; a dash if it is not finite."""
    return objective.text(value) if np.isfinite(value) else "-"


def point_text(trial: SearchTrial) -> str:
    """Return a trial's parameters in one line."""
    return ", ".join(f"{name} = {parameter_text(v)}" for name, v in trial.params.items())


def sentences(results: SearchResults) -> list[str]:
    """Return sentences on how much was spent, on what it brought, and on what went wrong, in this order."""
    return [
        _counts(results),
        *_epochs_saved(results),
        *_best(results),
        *_constraints(results),
        *_importances(results),
        *_failed(results),
    ]


def tested(results: SearchResults, refit: Ablation) -> list[str]:
    """Return sentences on what was trained again on new seeds, or on why there is nothing to judge."""
    winners = [name for name in refit.arms if name != "base"]
    if not winners:
        return [THE_BASE if results.best else NO_BEST]
    return [
        f"{name}: the base with {', '.join(f'{field} = {parameter_text(v)}' for field, v in refit.arms[name].items())}."
        for name in winners
    ]


def _counts(results: SearchResults) -> str:
    """Return the sentence on how many trials were suggested, by state."""
    planned = results.search.budgets[results.budget].trials
    states = Counter(trial.state for trial in results.history)
    pruned = [f"{states['PRUNED']} pruned by {results.search.pruner.name}"] if results.search.pruner else []
    under_way = states["RUNNING"] + states["WAITING"]
    ended = [f"{states['COMPLETE']} complete", *pruned, f"{states['FAIL']} failed"]
    ended += [f"{under_way} under way"] if under_way else []
    sampler = f"{results.sampler} (Optuna {results.optuna})"
    return f"{len(results.history)} of {planned} trials asked for by {sampler}: {', '.join(ended)}."


def _epochs_saved(results: SearchResults) -> list[str]:
    """Return the sentence on the epochs that pruning saved, if there is a pruner."""
    ended = [*results.in_state("COMPLETE"), *results.in_state("PRUNED")]
    if results.search.pruner is None or not ended:
        return []
    spent = sum(map(results.epochs, ended))
    unpruned = len(ended) * results.search.budgets[results.budget].epochs * len(results.search.seeds)
    saved = f"{1 - spent / unpruned:.0%} saved"
    return [f"{counted(spent, 'epoch')} spent; without pruning the same trials take {unpruned:,} ({saved})."]


def _best(results: SearchResults) -> list[str]:
    """Return the sentences on the best trial or the front, or on why there is none."""
    quality = results.search.quality
    if not results.best:
        reason = "No complete trial keeps the constraints" if results.in_state("COMPLETE") else "No trial is complete"
        return [f"{reason}, so there is no best one."]
    if not results.multi_objective:
        top = results.best[0]
        seeds = f", mean over {len(results.search.seeds)} seeds" if results.over_seeds else ""
        best = f"{quality.label} {value_text(quality, results.value(top, quality))}"
        return [f"Best: trial #{top.number}, {best}{seeds}, at {point_text(top)}."]
    names = " and ".join(o.label for o in results.objectives)
    front = f"{len(results.best)} trials are beaten by no other in {names} together (the front)."
    if len(results.best) == 1:
        front = f"Trial #{results.best[0].number} beats all others in {names} together, or equals them."
    extremes = [max(results.best, key=lambda trial: o.sign * results.value(trial, o)) for o in results.objectives]
    best_by_objective = [
        f"Best {o.label}: trial #{trial.number}, {value_text(o, results.value(trial, o))}, at {point_text(trial)}."
        for o, trial in zip(results.objectives, extremes, strict=True)
    ]
    return [front, *best_by_objective]


def _constraints(results: SearchResults) -> list[str]:
    """Return the sentence on how many trials break a constraint, if there are constraints."""
    complete = results.in_state("COMPLETE")
    if not results.search.constraints or not complete:
        return []
    broken = sum(not trial.feasible for trial in complete)
    return [
        f"{broken} of {len(complete)} complete trials break a constraint ({results.search.constraints_in_words}); "
        "none of them is chosen."
    ]


def _importances(results: SearchResults) -> list[str]:
    """Return the sentence on which parameters matter, if there are several."""
    if len(results.parameters) < 2:
        return []
    if results.importances:
        return [f"What matters: {', '.join(f'{name} {share:.0%}' for name, share in results.importances.items())}."]
    if len(results.in_state("COMPLETE")) < FEWEST:
        return [f"Too few trials are complete to say which parameter matters: {FEWEST} are needed."]
    return ["No parameter sets the best trials apart from the others."]


def _failed(results: SearchResults) -> list[str]:
    """Return a sentence for each reason of failure, with its trials."""
    reasons: dict[str, list[int]] = {}
    for trial in results.in_state("FAIL"):
        reasons.setdefault(trial.why.split(":")[0].strip() or "no reason on record", []).append(trial.number)
    return [f"Failed, {why}: {', '.join(f'#{n}' for n in numbers)}." for why, numbers in reasons.items()]


def top(results: SearchResults) -> tuple[str, list[SearchTrial]]:
    """Return the title of the table of the best, and its trials; of a long front some from end to end."""
    if not results.multi_objective or not results.best:
        return "The best trials", results.ranked[:MOST_LISTED]
    title = "The front: trials that no other beats in every objective"
    if len(results.best) > MOST_LISTED:
        title = f"The front, {MOST_LISTED} of its {len(results.best)} trials from end to end"
    return title, spread(results.best, MOST_LISTED)


def spread(trials: Sequence[SearchTrial], limit: int) -> list[SearchTrial]:
    """Return all of these trials, or `limit` of them evenly from end to end."""
    return [trials[i] for i in dict.fromkeys(np.linspace(0, len(trials) - 1, min(limit, len(trials))).round().astype(int))]


def headings(results: SearchResults, parameters: Sequence[str]) -> list[str]:
    """Return the headings of a table of trials with these parameters."""
    return ["trial", *(o.heading for o in results.objectives), *parameters, *(["feasible"] if results.search.constraints else [])]


def rows(results: SearchResults, trials: Sequence[SearchTrial], parameters: Sequence[str]) -> list[list[str]]:
    """Return a row per trial; a dash for a parameter that it does not have."""
    return [
        [
            f"#{trial.number}",
            *(value_text(o, results.value(trial, o)) for o in results.objectives),
            *(parameter_text(trial.params[p]) if p in trial.params else "-" for p in parameters),
            *([("yes" if trial.feasible else "no")] if results.search.constraints else []),
        ]
        for trial in trials
    ]


def table(results: SearchResults) -> pd.DataFrame:
    """Return the table of all trials that search.csv holds."""
    return pd.DataFrame(
        [
            {
                "number": trial.number,
                "state": trial.state,
                **{p: trial.params.get(p) for p in results.parameters},
                **{o.key: results.value(trial, o) if trial.state == "COMPLETE" else None for o in results.objectives},
                "feasible": trial.feasible if trial.state == "COMPLETE" else None,
                "epochs": results.epochs(trial) if trial.state in ("COMPLETE", "PRUNED") else None,
                "runs": " ".join(filter(None, trial.runs)),
                "reason": trial.why,
            }
            for trial in results.history
        ]
    ).convert_dtypes()
