"""What a search has found: its trials as data, and those that no other beats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from harness.spec import TrialSpec
from harness.study import SCORES, Cell, Search


@dataclass(frozen=True, kw_only=True)
class SearchTrial:
    """A trial of a search as it stands in the ledger. `values` by objective; None where there are none (yet)."""

    number: int
    state: str
    params: Mapping[str, Any]
    values: Mapping[str, float] | None
    feasible: bool
    reports: Mapping[int, float]
    spec: TrialSpec
    runs: tuple[str, ...]
    why: str


def asked(search: Search, t: FrozenTrial, cells: Sequence[Cell]) -> SearchTrial:
    """A trial of the ledger as data; `cells` are its runs."""
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


def front(trials: Sequence[SearchTrial], objectives: Sequence[str]) -> list[SearchTrial]:
    """Complete trials that keep the constraints and that no other beats in every objective; best by the first one first."""
    signs = {o: 1 if SCORES[o].better == "higher" else -1 for o in objectives}
    able = [a for a in trials if a.state == "COMPLETE" and a.feasible]
    score = {a.number: tuple(sign * (a.values or {})[o] for o, sign in signs.items()) for a in able}

    def beaten(mine: tuple[float, ...]) -> bool:
        return any(other != mine and all(x >= y for x, y in zip(other, mine, strict=True)) for other in score.values())

    ahead = [a for a in able if not beaten(score[a.number])]
    return sorted(ahead, key=lambda a: (score[a.number], -a.number), reverse=True)
