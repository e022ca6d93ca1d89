"""The findings about studies in the terminal: `harness doctor`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from harness import paths
from harness.doctor.findings import diagnose, plan_findings
from harness.doctor.rules import Finding, Severity
from harness.errors import UserError
from harness.queue import stored_notes
from harness.study import Ablation, LoadedStudy, load, names, questions
from harness.tracking import beside, experiment_name, experiments, is_on_record, judged_on_record, on_record, stored_plan

# Findings by what to do about them: heading, and what it says of the numbers.
GROUPS: Mapping[Severity, tuple[str, str, str]] = {
    "wrong": ("do now", "these numbers do not mean what they claim", "bold red"),
    "careful": ("look at", "right numbers, easily misread", "bold yellow"),
    "note": ("good to know", "", "bold"),
}


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A study and budget with what was found.

    Attributes:
        study: its name.
        budget: its name.
        finished: how many trials of its plan are on record.
        planned: how many there are.
        findings: the most important ones first.
    """

    study: str
    budget: str
    finished: int
    planned: int
    findings: Sequence[Finding]

    @property
    def wrong(self) -> bool:
        """Whether something is wrong."""
        return any(finding.severity == "wrong" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON document has it."""
        findings = [{"group": GROUPS[finding.severity][0], **asdict(finding)} for finding in self.findings]
        return {**{f: getattr(self, f) for f in ("study", "budget", "finished", "planned")}, "findings": findings}


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the findings by what to do: those with the same advice together, arms with the same finding on one line."""
    for severity, (title, meaning, style) in GROUPS.items():
        of_group = [finding for finding in findings if finding.severity == severity]
        if of_group:
            heading = Text(f"{title[0].upper()}{title[1:]}", style)
            console.print(heading.append(f": {meaning}" if meaning else "", "not bold"))
        for advice in dict.fromkeys(finding.advice for finding in of_group):
            similar = [finding for finding in of_group if finding.advice == advice]
            for what in dict.fromkeys(finding.what for finding in similar):
                arms = ", ".join(finding.arm for finding in similar if finding.what == what and finding.arm)
                console.print(Padding(Text(f"{arms}: {what}" if arms else what), (0, 0, 0, 2), expand=False))
            console.print(Padding(Text(f"-> {advice}", "dim"), (0, 0, 0, 4), expand=False))


def examine(name: str, budget: str | None, console: Console) -> int:
    """Print what `examinations` finds, for `harness doctor`. Return 1 if something is wrong, else 0."""
    examined = examinations(name, budget)
    for one in examined:
        count = f"{one.finished} of {one.planned}" if one.finished < one.planned else f"{one.planned}"
        trials = f"{count} trial{'s' * (one.planned != 1)} of {one.study} ({one.budget} budget)"
        console.print(Text(f"{trials}:" if one.findings else f"nothing to complain about: {trials}"))
        show(one.findings, console)
    return int(any(one.wrong for one in examined))


def examinations(name: str, budget: str | None) -> list[Examined]:
    """Return what is found about a study's budget, or about all that have runs.

    Raises:
        UserError: no such trial is on record.
    """
    examined = []
    for loaded, study_budget, study in _planned(name, budget):
        cells = study.cells(study_budget)
        ids = {c.spec.id for c in cells}
        finished, failed = on_record(loaded.name, study_budget)
        records = {cell: r for cell, r in finished.items() if cell in ids}
        failures = {cell: reason for cell, reason in failed.items() if cell in ids}
        if not records and not failures:
            continue
        store = ".".join(filter(None, (loaded.name, study_budget, loaded.study.part)))
        plan = stored_plan(stored_notes(store), loaded.name, study_budget)
        whole = _whole(loaded, study_budget)
        findings = [
            *plan_findings(plan.faults),
            *diagnose(study, loaded.reference, study_budget, cells, records, failures, whole=whole),
        ]
        found = Examined(study=loaded.name, budget=study_budget, finished=len(records), planned=len(cells), findings=findings)
        examined.append(found)
    if not examined:
        which = f" of {name}" * bool(name) + f" ({budget or 'default'} budget)" * bool(name or budget)
        run = paths.command("study", name=name or "...", budget=(budget or "default") if name else "")
        more = beside(load(name).name, budget or "default") if name else f"\n{questions()}"
        raise UserError(f"no trial{which} is on record\n{run}{more}")
    return examined


def _whole(loaded: LoadedStudy, beside: str) -> set[str]:
    """Return the budgets of a study, beside one, of which every trial is on record."""
    recorded, whole = experiments(), set()
    for budget in loaded.study.budgets:
        if budget != beside and experiment_name(loaded.name, budget) in recorded:
            finished, _ = on_record(loaded.name, budget)
            if all(cell.spec.id in finished for cell in judged_on_record(loaded, budget).cells(budget)):
                whole.add(budget)
    return whole


def _planned(name: str, budget: str | None) -> Iterator[tuple[LoadedStudy, str, Ablation]]:
    """Yield study, budget and ablation of the study and budget that were named, or of all of them, as far as they are on record.

    Without a name these are all studies with every budget, or with the budget that was named. For a search it is its test, in which
    the base and the best trials are trained on new seeds.
    """
    recorded = experiments()
    for reference in [name] if name else [n for n in names() if any(e == n or e.startswith(f"{n}-") for e in recorded)]:
        loaded = load(reference)
        if name:
            is_on_record(loaded.name, budget or "default")  # raises an error if it was deleted
        for study_budget in [budget or "default"] if name else loaded.study.budgets:
            if budget in (None, study_budget) and experiment_name(loaded.name, study_budget) in recorded:
                yield loaded, study_budget, judged_on_record(loaded, study_budget)
