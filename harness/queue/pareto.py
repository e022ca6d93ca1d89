"""The trials of a search as data, and its Pareto front."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from harness.scores import Score
from harness.spec import TrialSpec
from harness.study import Cell, Search


@dataclass(frozen=True, kw_only=True)
class SearchTrial:
    """A trial of a search, as the trial store has it now.

    Attributes:
        number: its number in the store.
        state: the name of its Optuna state.
        params: the values of its parameters by name.
        values: the values by objective; None if there are none (yet).
        feasible: True if it keeps all constraints.
        reports: the values that were reported, by epoch or seed.
        spec: the spec of its first seed's run.
        runs: the ids of its runs, one per seed; an empty string for a run that was not started.
        why: the reason why it failed or was pruned; empty if neither.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    values: Mapping[str, float] | None
    feasible: bool
    reports: Mapping[int, float]
    spec: TrialSpec
    runs: tuple[str, ...]
    why: str


def search_trial(search: Search, t: FrozenTrial, cells: Sequence[Cell]) -> SearchTrial:
    """Return a trial of the store as data. `cells` are its runs' cells, one per seed."""
    values = dict(zip(search.objectives, t.values, strict=False)) if t.values else None
    runs = tuple(t.user_attrs.get(f"run.{i}", "") for i in range(len(cells)))
    feasible = all(v <= 0 for v in t.constraints.values())
    why = t.user_attrs.get("failure", "") or t.user_attrs.get("pruned", "")
    return SearchTrial(
        number=t.number,
        state=t.state.name,
        params=t.params,
        values=values,
        feasible=feasible,
        reports=t.intermediate_values,
        spec=cells[0].spec,
        runs=runs,
        why=why,
    )


def front(trials: Sequence[SearchTrial], objectives: Sequence[Score]) -> list[SearchTrial]:
    """Return the Pareto front: complete, feasible trials that no other dominates, sorted by the first objective, best first."""
    eligible = [t for t in trials if t.state == "COMPLETE" and t.feasible]
    score = {t.number: tuple(o.sign * (t.values or {})[o.key] for o in objectives) for t in eligible}

    def dominated(own: tuple[float, ...]) -> bool:
        """Return whether another trial is at least as good in every objective and better in one."""
        return any(other != own and all(x >= y for x, y in zip(other, own, strict=True)) for other in score.values())

    best = [t for t in eligible if not dominated(score[t.number])]
    return sorted(best, key=lambda t: (score[t.number], -t.number), reverse=True)
