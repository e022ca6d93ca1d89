"""The findings about studies in the terminal: `harness doctor`."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from harness import paths
from harness.doctor.findings import diagnose, plan_findings
from harness.doctor.rules import Finding
from harness.errors import UserError
from harness.queue import stored_notes
from harness.study import Ablation, LoadedStudy, load, names, questions
from harness.tracking import experiment_name, experiments, is_on_record, judged_on_record, on_record, stored_plan

STYLES = {"wrong": "bold red", "careful": "bold yellow"}


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the findings: those with the same advice under one heading, arms with the same finding on one line."""
    for severity, advice in dict.fromkeys((c.severity, c.advice) for c in findings):
        similar = [c for c in findings if (c.severity, c.advice) == (severity, advice)]
        console.print(Text(severity, STYLES[severity]))
        for what in dict.fromkeys(c.what for c in similar):
            arms = ", ".join(c.arm for c in similar if c.what == what and c.arm)
            console.print(Padding(Text(f"{arms}: {what}" if arms else what), (0, 0, 0, 2), expand=False))
        console.print(Padding(Text(f"-> {advice}", "dim"), (0, 0, 0, 4), expand=False))


def examine(name: str, budget: str | None, console: Console) -> int:
    """Print the findings about a study's budget, or about all that have runs, for `harness doctor`.

    Returns:
        1 if something is wrong, else 0.

    Raises:
        UserError: no such trial is on record.
    """
    any_runs, any_wrong = False, False
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
        findings = [
            *plan_findings(plan.faults),
            *diagnose(study, loaded.reference, study_budget, cells, records, failures),
        ]
        count = f"{len(records)} of {len(cells)}" if len(records) < len(cells) else f"{len(cells)}"
        trials = f"{count} trial{'s' * (len(cells) != 1)} of {loaded.name} ({study_budget} budget)"
        console.print(Text(f"{trials}:" if findings else f"nothing to complain about: {trials}"))
        show(findings, console)
        any_runs, any_wrong = True, any_wrong or any(c.severity == "wrong" for c in findings)
    if not any_runs:
        which = f" of {name}" * bool(name) + f" ({budget or 'default'} budget)" * bool(name or budget)
        run = paths.command("study", name=name or "...", budget=(budget or "default") if name else "")
        raise UserError(f"no trial{which} is on record\n{run}" + f"\n{questions()}" * (not name))
    return int(any_wrong)


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
