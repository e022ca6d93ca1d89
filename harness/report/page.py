"""The report of a finished study as files: an HTML page, CSV, JSON and PNG, which are also put into the study's parent run."""

import base64
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from harness import evidence, paths, provenance
from harness.evidence import MADE_OF
from harness.report.ablation import tables
from harness.report.ablation.results import AblationResults
from harness.report.search import tables as search_tables
from harness.report.search.results import SearchResults
from harness.scores import COST, NATIVE, OWN_PMF, TRUST, compared, in_groups
from harness.stats import RULE
from harness.study import Cell, Study
from harness.tracking import Tracker

FIGURES = ("scores", "rate_distortion", "gallery")  # of the arms; those of a report that is current are not drawn again


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
        (folder_path / name).write_bytes(content)
    with stoppable():
        if results.arms or search_results:
            _write(results, folder_path, search_results, question, tracker)
    tags = {f"verdict.{i}": judgement.line for i, judgement in enumerate(results.judgements, 1)} if results.arms else {}
    tags[MADE_OF] = made_of(results, search_results, question)
    records, winner = list(results.records.values()), results.winner
    study: Study = search_results.search if search_results else results.study
    text = note(question, results.budget, study, results)
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
    """Return the figures of the arms in a report's folder by file name; none unless all are as the report's manifest has them."""
    manifest = folder_path / evidence.FILE
    files = [folder_path / f"{name}.png" for name in FIGURES]
    if not all(file.exists() for file in (manifest, *files)) or evidence.sha256_of(manifest) != tracker.study_tag(evidence.TAG):
        return {}
    known = json.loads(manifest.read_text(encoding="utf-8"))["report"]["files"]
    return {f.name: f.read_bytes() for f in files} if all(evidence.sha256_of(f) == known.get(f.name) for f in files) else {}


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


def _write(
    results: AblationResults, folder_path: Path, search_results: SearchResults | None, question: str, tracker: Tracker
) -> None:
    """Write all files of the report into a folder. The pictures of trials come from the tracker."""
    # This and, below, matplotlib take a second to import, and most commands write no report.
    from jinja2 import Environment, PackageLoader

    arm_values = _write_arms(results, folder_path, tracker) if results.arms else {}
    page = Environment(loader=PackageLoader("harness.report", "."), autoescape=True).get_template("page.html")
    versions = f"torch {results.origins('version.torch')}, Python {results.origins('version.python')}"
    html = page.render(
        f=results,
        question=question,
        made_of=made_of(results, search_results, question),
        rule=RULE,
        search=_write_search(results, search_results, folder_path) if search_results else None,
        **arm_values,
        browse=paths.command("ui"),
        facts={
            "command": provenance.command(),
            "plan": _plan_in_words(results),
            "winner": _winner_in_words(results),
            "machine": results.origins("device"),
            "code of the trials": results.commits,
            "versions": versions if results.records else "",
            "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        },
    )
    (folder_path / "report.html").write_text(html, encoding="utf-8")


def _write_arms(results: AblationResults, folder_path: Path, tracker: Tracker) -> dict[str, Any]:
    """Write the files of the judged arms and return what the page shows of them, by variable of the template."""
    comparing, own = tables.comparing(results), results.present(in_groups(results.scores, OWN_PMF))
    headings, score_rows = tables.table_of(results, [score for scores in comparing.values() for score in scores])
    results.table.to_csv(folder_path / "trials.csv", index=False)
    pd.DataFrame(score_rows, columns=headings).to_csv(folder_path / "arms.csv", index=False)
    rows = {"plan": results.plan.head, "faults": results.plan.faults, "verdicts": [j.row for j in results.judgements]}
    (folder_path / "verdicts.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if not all((folder_path / f"{name}.png").exists() for name in FIGURES):
        _draw_arms(results, folder_path, tracker)
    return {
        "diverged": tables.divergences(results),
        "tables": [(title, tables.table_of(results, scores)) for title, scores in comparing.items()],
        "left_out": tables.left_out(results, [score for scores in compared(results.scores).values() for score in scores]),
        "native_left_out": tables.left_out(results, in_groups(results.scores, NATIVE, TRUST)),
        "differences": [
            (title, tables.difference_of(results, tables.varying(results, scores))) for title, scores in comparing.items()
        ]
        if results.arms[1:] and not results.interim
        else [],
        "own": tables.own_rows(results, own) if own else [],
        "own_headings": ["arm", *(score.heading for score in own)],
        "native_headings": tables.native_headings(results),
        "native": tables.native_rows(results),
        "cost": tables.cost_rows(results),
        "cost_headings": ["arm", *(score.heading for score in in_groups(results.scores, COST))],
        "images": {name: _base64(folder_path / f"{name}.png") for name in FIGURES},
    }


def _draw_arms(results: AblationResults, folder_path: Path, tracker: Tracker) -> None:
    """Draw the figures of the judged arms into a folder."""
    from harness.report.ablation import figures

    plotted = [score for score in tables.varying(results, tables.telling(results)) if score.better]
    figures.scores(results.table, results.arms, plotted, folder_path / "scores.png")
    figures.rate_distortion(results.table, results.arms, folder_path / "rate_distortion.png")
    pictures = {arm: tracker.file(run, "pictures.npz") for arm, run in results.pictured.items()}
    figures.gallery(pictures, folder_path / "gallery.png")


def _write_search(results: AblationResults, search_results: SearchResults, folder_path: Path) -> dict[str, Any]:
    """Write the files of the search and return what the page shows of it, by attribute of the template's `search`."""
    from harness.report.search import figures as search_figures

    search_tables.table(search_results).to_csv(folder_path / "search.csv", index=False)
    title, trials = search_tables.top(search_results)
    names = list(search_results.parameters)
    return {
        "sentences": search_tables.sentences(search_results),
        "title": title,
        "headings": search_tables.headings(search_results, names),
        "rows": search_tables.rows(search_results, trials, names),
        "figures": [
            (*words, _base64(folder_path / f"{name}.png"))
            for name, words in search_figures.draw(search_results, folder_path).items()
        ],
        "tested": search_tables.tested(search_results, results.study) if results.arms else [search_tables.NO_REFIT],
        "asked": len(search_results.history),
    }


def _base64(file: Path) -> str:
    """Return a file's contents in base64."""
    return base64.b64encode(file.read_bytes()).decode()


def note(question: str, budget: str, study: Study, results: AblationResults | None = None) -> str:
    """Return the text above the experiment of a study in MLflow, in Markdown, with the verdicts if there are results."""
    lines = [f"- **{j.mark}**: {j.line}" for j in results.judgements] if results and results.arms else []
    faults = [f"- **plan**: {fault}" for fault in results.plan.faults] if results else []
    verdicts = "\n".join([*lines, *faults])
    return f"**{question}**\n\n" + f"{verdicts}\n\n" * bool(verdicts) + study.note(budget)


def _winner_in_words(results: AblationResults) -> str:
    """Return which trial is the winner, whose model is kept, and what that says; empty if there is none."""
    if results.winner is None or results.study.objective is None:
        return ""
    label, trials = results.scores[results.study.objective].label, len(results.present_records)
    caveat = "; the best of many looks better than it is, which trials on new seeds would show" if trials > 1 else ""
    return f"{results.winner.arm} / seed {results.winner.seed}, the best of {trials} by {label}{caveat}"


def _plan_in_words(results: AblationResults) -> str:
    """Return the number, digest and time of the plan that the report judges by, and how often its results were looked at."""
    plans = results.plan.plans
    if not plans:
        return ""
    looks = len(results.plan.looks)
    return f"version {len(plans)}, {results.plan.head[:12]}, stated {plans[-1].time}; {looks} look{'s' * (looks != 1)} at results"
