"""The plan of a study in words: what it claims, since when, and what it can see. Nothing is run or written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from harness import plans, provenance
from harness.errors import counted
from harness.plans import PlannedClaim, PlanRecord
from harness.queue import known_results, stored_notes, trial_uri
from harness.report.ablation.judging import planned_claims
from harness.report.ablation.results import AblationResults
from harness.stats import FEWEST, RULE, detectable, seeds_needed
from harness.study import LoadedStudy
from harness.tracking import has_rows, judged_on_record, on_record, stored_plan

FACTORS = (0.5, 2.0)  # of a difference that was seen: those whose seeds are predicted beside it


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The plan of a study, as its file has it and as it is on record.

    Attributes:
        study: its name.
        budget: its name.
        shape: the size of the budget in words.
        epochs: of each trial.
        record: the stored plans and looks and, where the file says something else, the plan that it would state next.
        stored: in words, which plan is stored, and which looks were taken at its results.
        new: whether the file says something that no stored plan says.
        claims: of that plan, each with what its seeds can show, in words.
    """

    study: str
    budget: str
    shape: str
    epochs: int
    record: PlanRecord
    stored: Sequence[str]
    new: bool
    claims: Sequence[tuple[PlannedClaim, Sequence[str]]]

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON document has it."""
        kept = self.record.plans[: len(self.record.plans) - self.new] if not self.record.faults else self.record.plans
        plan = {"version": len(kept), "time": kept[-1].time, "sha256": kept[-1].sha256} if kept else None
        names = ("better", "worse", "metric", "direction", "margin", "looks", "looked")
        claims = [
            {"claim": claim.words, **{name: getattr(claim, name) for name in names}, "seeds": len(claim.seeds)}
            | {"standing": claim.standing.value, "standing_in_words": claim.standing_in_words, "sight": list(sight)}
            for claim, sight in self.claims
        ]
        return {
            "study": self.study,
            "budget": self.budget,
            "shape": self.shape,
            "epochs": self.epochs,
            "plan": plan,
            "changed": bool(self.new and plan),
            "faults": list(self.record.faults),
            "rule": RULE,
            "claims": claims,
        }


def plan_on_record(loaded: LoadedStudy, budget: str, *, storage: str = "", earlier: LoadedStudy | None = None) -> Planned:
    """Return the plan of a study, the standing of its claims, and what its seeds can show.

    Args:
        loaded: the study.
        budget: of the study, by name.
        storage: the URI of the server that holds its trials; empty for the file in mlruns/.
        earlier: a study whose results say how far scores spread over seeds; None for this one's own.
    """
    study = judged_on_record(loaded, budget)
    store = ".".join(filter(None, (loaded.name, budget, loaded.study.part)))
    record = stored_plan(stored_notes(store, storage), loaded.name, budget)
    content = plans.stated(study, name=loaded.name, budget=budget, question=loaded.question, data={})
    content["data"] = (record.present or {}).get("data", {})
    stored = _stored(record)
    new = record.present is None or plans.comparable_content(content) != plans.comparable_content(record.present)
    if new and record.plans:
        version = len(record.plans) + 1
        stored.append(f"the file has changed since: `study` or `report` will state it as version {version}, as follows")
    if new and not record.faults:
        record = record.and_plan(content, *known_results(trial_uri(storage), store, record, content, has_rows))
    claims = planned_claims(record, study, loaded.name, budget)
    spreads, whose = _spreads(earlier or loaded, budget), "" if earlier is None else f" of {earlier.name}"
    return Planned(
        study=loaded.name,
        budget=budget,
        shape=study.shape(budget),
        epochs=study.budgets[budget].epochs,
        record=record,
        stored=stored,
        new=new,
        claims=[(claim, _sight(claim, spreads, len(claims), whose)) for claim in claims],
    )


def show_plan(loaded: LoadedStudy, budget: str, console: Console, *, storage: str = "", earlier: LoadedStudy | None = None) -> None:
    """Print what `plan_on_record` returns: `harness plan`."""
    planned = plan_on_record(loaded, budget, storage=storage, earlier=earlier)
    lines = [f"{planned.study} ({budget} budget): {planned.shape}, {counted(planned.epochs, 'epoch')}", *planned.stored]
    lines += [*(f"fault: {fault}" for fault in planned.record.faults), f"rule: {RULE}"]
    for claim, sight in planned.claims:
        lines += ["", f"{claim.words}: {'would be ' * planned.new}{claim.standing_in_words}", *(f"  {line}" for line in sight)]
    for line in lines if planned.claims else [*lines, "it states no hypothesis"]:
        console.print(Text(line), soft_wrap=True)


def _stored(record: PlanRecord) -> list[str]:
    """Return in words which plan is stored, and which looks were taken at its results."""
    if not record.plans:
        return ["plan: none is stored yet; the first `study` states this one, before it begins a trial"]
    newest = record.plans[-1]
    code = newest.content["code"]["version"]
    lines = [f"plan: version {len(record.plans)} of {newest.time}, sha256 {newest.sha256[:12]}, code {code}"]
    if code != provenance.code():
        lines[0] += " (today's is another)"
    looks = [sorted(set(look.content["looks"].values())) for look in record.looks]
    if looks:
        lines.append(f"looks at results: {len(looks)}, at {', '.join('/'.join(map(str, n)) for n in looks)} seeds")
    return lines


def _spreads(loaded: LoadedStudy, budget: str) -> AblationResults | None:
    """Return the results on record of a study; None if there are none."""
    study = judged_on_record(loaded, budget)
    records, _ = on_record(loaded.name, budget)
    results = AblationResults(name=loaded.name, budget=budget, study=study, cells=study.cells(budget), records=records, failures={})
    return results if results.arms else None


def _differences(results: AblationResults, claim: PlannedClaim) -> Sequence[float]:
    """Return the paired differences of a claim's arms, found by their names, in results; empty if it has none."""
    arms = (claim.better, claim.worse)
    if not all(arm in results.arms and results.has(arm, claim.metric) for arm in arms):
        return []
    seeds = results.common_seeds(*arms)
    a, b = (np.asarray(results.by_seed(arm, claim.metric, seeds)) for arm in arms)
    differences: list[float] = (a - b if claim.direction == "higher" else b - a).tolist()
    return differences


def _sight(claim: PlannedClaim, results: AblationResults | None, claims: int, whose: str) -> list[str]:
    """Return in words what a claim's planned seeds can show, by the spread of results of this study or of `whose`."""
    looked = bool(claim.looked or whose)
    differences = _differences(results, claim) if results else []
    n = claim.looks[-1]
    general = detectable(n, claim.looks, claims=claims, unplanned=False)
    in_sd = f"{n} seeds show {general:.1f} standard deviations of the paired differences with 80 % power"
    if not np.isfinite(general):
        in_sd = f"{counted(n, 'seed')} cannot show any difference; {FEWEST} can"
    if len(differences) < 2:
        return [in_sd, f"how large those are is not known{f' from the results{whose}' if whose else ' yet'}"]
    spread, seen = float(np.std(differences, ddof=1)), float(np.mean(differences))
    if not spread:
        return [in_sd, f"the {len(differences)} differences{whose} are all equal"]
    shown, d = spread * general, claim.digits
    mean = f"mean {seen:+.{d}f}, " if looked else ""  # before a look the mean would be one
    lines = [
        f"paired differences{whose}: {mean}standard deviation {spread:.{d}f} over {len(differences)} seeds",
        f"{n} seeds show {shown:.{d}f} with 80 % power" if np.isfinite(shown) else in_sd,
    ]
    if claim.known or claim.looked:
        lines.append(_price(claim, spread, claims))
    sought: Mapping[str, float] = {"the margin, ": claim.margin} if claim.margin else {}
    sought = {**sought, **{f"{factor:g} x what was seen, ": abs(seen) * factor for factor in FACTORS if looked}}
    for words, difference in sought.items():
        needed = seeds_needed(difference, spread, claims=claims, looks=len(claim.looks)) if difference else 0
        if needed:
            lines.append(f"{words}{difference:.{d}f}: {needed:,} seeds")
    return lines


def _price(claim: PlannedClaim, spread: float, claims: int) -> str:
    """Return in words what seeds show that are added once results are known, beside as many that were planned."""
    n, d = 2 * max(FEWEST, claim.looks[-1]), claim.digits
    planned = spread * detectable(n, (n,), claims=claims, unplanned=False)
    added = spread * detectable(n, claim.looks, claims=claims, unplanned=True)
    shown = f"{added:.{d}f}" if np.isfinite(added) else "nothing"
    return f"seeds added now are a look that nobody planned: {n} seeds would show {shown}; planned before, {planned:.{d}f}"
