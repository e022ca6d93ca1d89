"""The report of a finished study as files: an HTML page, CSV, JSON and PNG, which are also put into the study's parent run."""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import evidence, paths, provenance
from harness.evidence import MADE_OF
from harness.report import contents
from harness.report.ablation.results import AblationResults
from harness.report.note import note
from harness.report.search import tables as search_tables
from harness.report.search.results import SearchResults
from harness.study import Cell, Study
from harness.tracking import Tracker

FIGURE_FILES = (".png", ".svg", ".pdf")  # those of a report that is current are not drawn again


def folder(name: str, budget: str) -> Path:
    """Return the folder of the report's newest copy on this machine; the other copy is in the study's parent run."""
    return paths.mlruns() / "reports" / (name if budget == "default" else f"{name}-{budget}")


def publish(
    results: AblationResults,
    tracker: Tracker,
    search_results: SearchResults | None = None,
    stoppable: Callable[[], AbstractContextManager[None]] = nullcontext,
    *,
    question: str = "",
) -> None:
    """Write the report, then close the study's parent run with it, its verdicts, and the winner as a model.

    Args:
        results: what is on record of the arms.
        tracker: of the study.
        search_results: what is on record of the search, if the study has one.
        stoppable: opens the block in which a signal may stop the process: while the report is written.
        question: that the study asks.
    """
    folder_path = folder(results.name, results.budget)
    drawn = _drawn(folder_path, tracker) if is_current(results, tracker, search_results, question) else {}
    shutil.rmtree(folder_path, ignore_errors=True)
    folder_path.mkdir(parents=True)
    for name, content in drawn.items():
        (folder_path / name).parent.mkdir(exist_ok=True)
        (folder_path / name).write_bytes(content)
    with stoppable():
        if results.arms or search_results:
            contents.write(
                results,
                folder_path,
                search_results=search_results,
                question=question,
                made_of=made_of(results, search_results, question),
                winner=_winner_in_words(results),
                tracker=tracker,
            )
    tags = {f"verdict.{i}": judgement.line for i, judgement in enumerate(results.judgements, 1)} if results.arms else {}
    tags[MADE_OF] = made_of(results, search_results, question)
    records, winner = list(results.records.values()), results.winner
    study: Study = search_results.search if search_results else results.study
    text = note(question, results.budget, study, results, tracker.pages)
    tags[evidence.TAG] = evidence.of_report(
        folder_path,
        results.name,
        results.budget,
        records,
        plan=results.plan.head,
        note=text,
        winner=winner.spec.id if winner else "",
    )
    if winner is not None:
        tags["winner"] = _winner_in_words(results)
        if tracker.study_tag("winner.cell") != winner.spec.id:
            tags["winner.cell"] = winner.spec.id
            tags["winner.model"] = _keep(winner, tracker, results.records[winner.spec.id].run)
    tracker.finish_study(folder_path, tags, text)


def load_publisher(*, exporter: bool) -> None:
    """Import what `publish` draws with and, if asked for, what exports a winner: a second or two of work."""
    from harness.report.ablation import figures

    figures.load_seaborn()
    if exporter:
        from harness.tracking.model_export import load_exporter

        load_exporter()


def _drawn(folder_path: Path, tracker: Tracker) -> dict[str, bytes]:
    """Return the figures in a report's folder by file name; none unless all are there as the report's manifest has them."""
    manifest = folder_path / evidence.FILE
    if not manifest.exists() or evidence.sha256_of(manifest) != tracker.study_tag(evidence.TAG):
        return {}
    known = json.loads(manifest.read_text(encoding="utf-8"))["report"]["files"]
    figures = {name: folder_path / name for name in known if Path(name).suffix in FIGURE_FILES}
    if not all(file.exists() and evidence.sha256_of(file) == known[name] for name, file in figures.items()):
        return {}
    return {name: file.read_bytes() for name, file in figures.items()}


def made_of(results: AblationResults, search_results: SearchResults | None, question: str) -> str:
    """Return a digest of all that a report is made of: plan and looks, verdicts, runs and their scores, failures, and the code."""
    content = {
        "question": question,
        "plan": results.plan.head,
        "verdicts": [j.row for j in results.judgements],
        "runs": {cell: [r.run, dict(r.metrics)] for cell, r in results.records.items()},
        "cells": [cell.spec.id for cell in results.cells],
        "failures": dict(results.failures),
        "search": search_tables.table(search_results).to_csv() if search_results else "",
        "code": [provenance.digest(), provenance.version("matplotlib")],
    }
    return sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def is_current(results: AblationResults, tracker: Tracker, search_results: SearchResults | None, question: str) -> bool:
    """Return whether the report on this machine and that in the parent run are made of what is on record now."""
    file = folder(results.name, results.budget) / "report.html"
    digest = made_of(results, search_results, question)
    return tracker.study_tag(MADE_OF) == digest and file.exists() and digest in file.read_text(encoding="utf-8")


def _keep(winner: Cell, tracker: Tracker, run: str) -> str:
    """Save the model of the winner, whose trial has this run, and return its URI, or the reason why it cannot be exported."""
    from harness.tracking.model_export import export

    weights = tracker.file(run, "state_dict.pt")
    with TemporaryDirectory(prefix="harness-") as programs:
        try:
            example = export(winner.spec, weights, Path(programs))
        except Exception as fault:  # torch.export does not take every module, and a report must not fail for that
            return f"none: {type(fault).__name__}: {str(fault).partition(chr(10))[0][:300]}"
        return tracker.log_model(Path(programs), example, winner.spec.latent)


def _winner_in_words(results: AblationResults) -> str:
    """Return which trial is the winner, whose model is kept, and what that says; empty if there is none."""
    if results.winner is None or results.study.objective is None:
        return ""
    label, trials = results.scores[results.study.objective].label, len(results.present_records)
    caveat = "; the best of many looks better than it is, which trials on new seeds would show" if trials > 1 else ""
    return f"{results.winner.arm} / seed {results.winner.seed}, the best of {trials} by {label}{caveat}"
