"""`harness verify`: everything on record of a study or run, held against its manifests. Nothing is written."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from harness import paths, plans, study
from harness.errors import UserError, counted
from harness.evidence.facts import located
from harness.evidence.faults import Found, manifest_of, run_faults, within
from harness.evidence.reports import Known, report_faults
from harness.evidence.schema import TAG, sha256_of
from harness.evidence.trials import store_faults
from harness.queue import TrialOnRecord, is_store_of, stores_on_record
from harness.tracking import NOT_SUPERSEDED, SUPERSEDED, Inspected, Inspection, inspection, plan_tags


@dataclass(kw_only=True)
class Books:
    """What is on record of a study and budget, and what was found wrong with it.

    Attributes:
        name: of the study.
        budget: its name.
        runs: of trials, deleted ones included.
        parents: the parent runs.
        trials: of the trial store.
        planned: the ids of the cells of the study's file, with the name of each; empty if that cannot be told.
        found: faults so far.
        manifests: those of the runs that have one, by run id.
    """

    name: str
    budget: str
    runs: Sequence[Inspected]
    parents: Sequence[Inspected]
    trials: Sequence[TrialOnRecord]
    planned: dict[str, str]
    found: Found = field(default_factory=Found)
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def finished(self) -> list[Inspected]:
        """The runs that have finished."""
        return [r for r in self.runs if r.status == "FINISHED"]

    def of(self, run: str) -> tuple[TrialOnRecord, int] | None:
        """Return the trial that names a run, and the index of the run's seed in it; None if no trial does."""
        return next(((t, part) for t in self.trials for part, named in t.runs.items() if named == run), None)


def verify(reference: str, budget: str, console: Console, *, storage: str = "") -> int:
    """Print what `hold` finds: what is not as it was kept. Return 0 if all is, else 1."""
    books = hold(reference, budget, storage=storage)
    for line in books.found.lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(_summary(books, reference), soft_wrap=True, highlight=False, markup=False)
    return int(bool(books.found.lines))


def as_dict(books: Books, reference: str) -> dict[str, Any]:
    """Return what `hold` found for a reference, as a JSON document has it."""
    return {
        "of": reference if is_run(reference) else books.name,
        "budget": books.budget,
        "faults": books.found.lines,
        "runs": len(books.manifests),
        "files": books.found.files,
        "scores": books.found.scores,
        "others": _others(books),
        "elsewhere": books.found.elsewhere,
        "summary": _summary(books, reference),
    }


def hold(reference: str, budget: str, *, storage: str = "") -> Books:
    """Hold what is on record of a study, or of one run by its id, against its manifests, and return what was found.

    Raises:
        UserError: no such study, budget or run is on record.
        MachineError: a store cannot be read.
    """
    with inspection() as store:
        one = store.run(reference) if is_run(reference) else None
        name, cells = (one.tags["study"], {}) if one else planned(reference, budget)
        budget = one.tags["budget"] if one else budget
        runs, parents = store.runs(name, budget)
        trials, notes = stores_on_record(name, budget, storage)
        books = Books(name=name, budget=budget, runs=runs, parents=parents, trials=trials, planned=cells)
        chosen = [r for r in books.runs if one is None or r.run == one.run]
        _hold_runs(books, chosen, store)
        store_faults(books.found, chosen, [t for t in books.trials if one is None or one.run in t.runs.values()], cells)
        _hold_data(books)
        if one is None:
            _hold_checkpoints(books)
            heads = _hold_plans(books, store, notes)
            _hold_reports(books, store, heads)
        elif one.status != "FINISHED":
            books.found.add(one.name, one.run, f"its status is {one.status}, so it counts for nothing")
    return books


def is_run(reference: str) -> bool:
    """Return whether this is the id of a run, and no name of a study."""
    return len(reference) == 32 and set(reference) <= set("0123456789abcdef")


def planned(reference: str, budget: str) -> tuple[str, dict[str, str]]:
    """Return the name that a study has on record, and its cells: their names by the id of the spec; none of a search."""
    try:
        study.check(reference, budget)
    except UserError:
        if reference.endswith(".py") or "/" in reference:
            raise
        return reference, {}  # its file is gone or broken; what is on record is still there to be held
    loaded = study.load(reference)
    if loaded.study.search is not None:
        return loaded.name, {}
    ablation = loaded.study.judged(budget, {})
    cells = ablation.cells(budget, ablation.budgets[budget].planned_looks[0])  # at which verdicts may have been settled
    return loaded.name, {cell.spec.id: f"{cell.arm} / seed {cell.seed}" for cell in cells}


def _hold_runs(books: Books, runs: Sequence[Inspected], store: Inspection) -> None:
    """Hold every finished run against its manifest. Those from before there were manifests get one line for all of them."""
    old = []
    for run in (r for r in runs if r.status == "FINISHED"):
        named = books.of(run.run)
        attribute = named[0].manifests.get(named[1]) if named else None
        with store.folder(run) as folder:
            if TAG not in run.tags and attribute is None and not manifest_of(folder):
                old.append(run)
                continue
            manifest = manifest_of(folder) or {}
            books.manifests[run.run] = manifest
            run_faults(books.found, run, folder, attribute, store)
    if old:
        were = "was" if len(old) == 1 else "were"
        books.found.lines.append(
            f"{counted(len(old), 'run')} {were} recorded before manifests were kept: nothing to hold them against"
        )


def _hold_data(books: Books) -> None:
    """Hold the raw data files of this machine, those that are there, against the digests that the manifests have of them."""
    wanted: dict[tuple[str, str], str] = {}
    for run, manifest in books.manifests.items():
        for name, digest in within(within(manifest, "data"), "files").items():
            wanted.setdefault((name, str(digest)), run)
    actual: dict[str, str] = {}
    for (name, digest), run in wanted.items():
        path = located(name)
        if name not in actual:
            actual[name] = sha256_of(path) if path.is_file() else ""
            books.found.files += bool(actual[name])
            books.found.elsewhere += [f"the data file {name}"] * (not actual[name])
        if actual[name] not in (digest, ""):
            books.found.lines.append(f"data file {path}: sha256 kept {digest} (run {run}), found {actual[name]}")


def _hold_checkpoints(books: Books) -> None:
    """Hold the checkpoints of the study's trials against their labels, but for those that its plan has no more.

    Nothing depends on the latter, which the study passes over if it should take these trials in again.
    """
    present = [r for r in books.runs if r.tags.get(SUPERSEDED, NOT_SUPERSEDED) == NOT_SUPERSEDED]
    cells = {r.tags.get("cell", "") for r in present} - {""}
    for label in sorted((paths.mlruns() / "checkpoints").glob("*/*/*/*.json")):
        if label.parent.name not in cells or not is_store_of(label.parent.parent.name, books.name, books.budget):
            continue
        checkpoint = label.with_suffix(".pt")
        try:
            kept = json.loads(label.read_bytes())["sha256"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as fault:
            books.found.lines.append(f"checkpoint {checkpoint}: its label cannot be read: {fault}")
            continue
        found = sha256_of(checkpoint) if checkpoint.is_file() else "not there"
        books.found.files += 1
        if found != kept:
            books.found.lines.append(f"checkpoint {checkpoint}: sha256 kept {kept}, found {found}")


def _hold_plans(books: Books, store: Inspection, notes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Hold the chain of plans and looks in the trial store against its copies: in the parent run, and in the tags of runs.

    Return the digest of the last entry, of each trial store that has one.
    """
    stored = {name: plans.read(kept) for name, kept in notes.items()}
    chains = {name: chain for name, chain in stored.items() if chain.entries or chain.faults}
    for parent in (p for p in books.parents if p.status != "deleted"):
        with store.folder(parent) as folder:
            file = folder / plans.PLAN_FILE
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
        tag = parent.tags.get(plans.PLAN_TAG, "")
        if tag and not chains:
            books.found.add("the study", parent.run, f"made under plan {tag[:12]}, and the trial store has no plan")
        for name, chain in chains.items():
            begun = plan_tags(r.tags for r in books.finished if r.tags.get("ledger") == name)
            for fault in (*chain.checked(tag=tag, file=text, runs=begun).faults, *_behind(chain, tag, text)):
                books.found.add(f"the plan in {name}", parent.run, fault)
    return [chain.head for chain in chains.values() if chain.head]


def _behind(chain: plans.PlanRecord, tag: str, text: str) -> Iterator[str]:
    """Yield in what the parent run's copies of a chain, its digest in a tag and the text of plan.json, are behind the chain."""
    if not tag or not text:
        yield f"the parent run has no {plans.PLAN_FILE}, or no tag of it"
    digests, total = [e.sha256 for e in chain.entries], len(chain.entries)
    if tag in digests[:-1]:
        yield f"the tag {plans.PLAN_TAG} of the parent run is that of entry {digests.index(tag) + 1} of {total}"
    if text:
        with suppress(ValueError, TypeError, RecursionError):  # what is no list of entries was edited, which is a fault of its own
            if len(json.loads(text)) < total:
                yield f"{plans.PLAN_FILE} of the parent run has {len(json.loads(text))} of {total} entries"


def _hold_reports(books: Books, store: Inspection, heads: Sequence[str]) -> None:
    """Hold the report in the parent run against all that it was made of, and its copy on this machine against its manifest.

    `heads` are the digests in which the chains of plans end.
    """
    parents = [p for p in books.parents if p.status != "deleted"]
    if len(parents) != 1:
        books.found.lines.append(f"{books.name}: {len(parents)} parent runs, 1 expected")
    counted = {r.run: r for r in books.finished if books.of(r.run)}
    wanted = {r.run for r in counted.values() if r.tags.get("cell") in books.planned}
    known = Known(counted=counted, wanted=wanted, heads=heads, note=store.note(books.name, books.budget))
    for parent in parents:
        if TAG not in parent.tags and not books.manifests and books.finished:
            continue  # as old as its runs, which have their line
        if TAG not in parent.tags:
            what = (
                "no report was written yet"
                if parent.status != "FINISHED"
                else f"no tag {TAG}: its report is from before there were any"
            )
            books.found.add("the study", parent.run, what)
            continue
        with store.folder(parent) as folder:
            report_faults(books.found, parent, folder, "in the parent run", known)
        copy = paths.mlruns() / "reports" / (books.name if books.budget == "default" else f"{books.name}-{books.budget}")
        if copy.is_dir():
            report_faults(books.found, parent, copy, f"in {copy}")
        else:
            books.found.elsewhere.append(f"the report's copy in {copy}")


def _others(books: Books) -> dict[str, int]:
    """Return how many runs have another status than finished, by status."""
    return {status: n for status, n in sorted(Counter(r.status for r in books.runs).items()) if status != "FINISHED"}


def _summary(books: Books, reference: str) -> str:
    """Return the last line: what was held, and how much of it was not as it was kept."""
    others = ", ".join(f"{n} {status}" for status, n in _others(books).items())
    files, scores = counted(books.found.files, "file"), counted(books.found.scores, "score")
    held = f"{counted(len(books.manifests), 'run')} with {files} and {scores}" + (f"; beside them {others}" if others else "")
    held += f"; not here, not held: {', '.join(books.found.elsewhere)}" if books.found.elsewhere else ""
    title = f"{reference}: " if is_run(reference) else f"{books.name}, {books.budget} budget: "
    if books.found.lines:
        return f"{title}{len(books.found.lines)} faults in {held}"
    return f"{title}all as it was kept: {held}"
