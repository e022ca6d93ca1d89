"""A finished study as verdicts, tables and figures: in the terminal, as CSV and PNG, and as one self-contained HTML page."""

import base64
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader

from harness import paths, provenance
from harness.report.ablation import figures, tables
from harness.report.ablation.results import AblationResults
from harness.report.search import figures as search_figures
from harness.report.search import text
from harness.report.search.results import SearchResults
from harness.study import Study, question
from harness.tracking import Tracker


def folder(name: str, budget: str) -> Path:
    """Where the report's newest copy lies on this machine; another is in the study's parent run."""
    return paths.mlruns() / "reports" / (name if budget == "default" else f"{name}-{budget}")


def publish(
    f: AblationResults,
    tracker: Tracker,
    found: SearchResults | None = None,
    stoppable: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Write the report, which may be stopped; then close the study's parent run with it, and with the winner as a model."""
    into = folder(f.name, f.budget)
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    with stoppable():
        if f.arms or found:
            _write(f, into, found)
    tags = {f"verdict.{i + 1}": v.sentence for i, v in enumerate(f.verdicts)}
    winner = f.winner
    if winner is not None and tracker.study_tag("winner.cell") != winner.spec.id:
        from harness.tracking.model_export import decoder_of

        weights = tracker.file(f.records[winner.spec.id].run, "state_dict.pt")
        module, example = decoder_of(winner.spec, weights)
        tags["winner"], tags["winner.cell"] = f"{winner.arm} / seed {winner.seed}", winner.spec.id
        tags["winner.model"] = tracker.log_model(module, example, [f"torch=={provenance.tags()['version.torch'].split('+')[0]}"])
    tracker.finish_study(into, tags)


def _write(f: AblationResults, into: Path, found: SearchResults | None) -> None:
    tested = _tested(f, into) if f.arms else {}
    page = Environment(loader=PackageLoader("harness.report", "."), autoescape=True).get_template("page.html")
    html = page.render(
        f=f,
        question=question(f.name),
        not_judged=[f"{h}: {tables.NOT_JUDGED}" for h in f.unjudged],
        verdicts=[
            (*words, tables.odds(words[2]), b) for words, b in zip(tables.verdict_words(f), tables.bootstraps(f), strict=True)
        ],
        search=_searched(f, found, into) if found else None,
        **tested,
        facts={
            "command": provenance.command(),
            "machine": f.origins("device"),
            "commit of the trials": f.commits,
            "versions": f"torch {f.origins('version.torch')}, Python {f.origins('version.python')}" if f.records else "",
            "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        },
    )
    (into / "report.html").write_text(html, encoding="utf-8")


def _tested(f: AblationResults, into: Path) -> dict[str, Any]:
    """Files of the tested arms; returns what the page shows of them."""
    there = [m for m in tables.FAIR if m in f.table]
    headings = ["arm", "n", *(tables.heading(m) for m in there)]
    f.table.to_csv(into / "trials.csv", index=False)
    pd.DataFrame(tables.score_rows(f, there), columns=headings).to_csv(into / "arms.csv", index=False)
    plain = [
        {"claim": v.sentence, "outcome": v.outcome, "p_holm": v.p_adjusted, "improvement": v.difference.improvement}
        for v in f.verdicts
    ]
    (into / "verdicts.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")
    figures.scores(f.table, f.arms, [m for m in tables.PLOTTED if m in f.table], into / "scores.png")
    figures.rate_distortion(f.table, f.arms, into / "rate_distortion.png")
    figures.gallery(f.pictures, into / "gallery.png")
    return {
        "tables": [(title, tables.table_of(f, metrics)) for title, metrics in tables.GROUPS.items()],
        "differences": [(title, tables.difference_of(f, tables.varying(f, metrics))) for title, metrics in tables.GROUPS.items()]
        if f.arms[1:]
        else [],
        "own": tables.own_rows(f) if any(m in f.table for m in tables.OWN) else [],
        "own_headings": ["arm", *(tables.heading(m) for m in tables.OWN)],
        "native_headings": [*tables.NATIVE_HEADINGS, *(label for label, _ in tables.NOTES.values())],
        "native": tables.native_rows(f),
        "cost": tables.cost_rows(f),
        "cost_headings": [label for label, _ in tables.COST.values()],
        "images": {p: _base64(into / f"{p}.png") for p in ("scores", "rate_distortion", "gallery")},
    }


def _searched(f: AblationResults, found: SearchResults, into: Path) -> dict[str, Any]:
    """Files of a search; returns what the page shows of it."""
    text.table(found).to_csv(into / "search.csv", index=False)
    title, trials = text.top(found)
    names = list(found.parameters)
    return {
        "sentences": text.sentences(found),
        "title": title,
        "headings": text.headings(found, names),
        "rows": text.rows(found, trials, names),
        "figures": [(*words, _base64(into / f"{name}.png")) for name, words in search_figures.draw(found, into).items()],
        "tested": text.tested(found, f.study) if f.arms else [text.NO_REFIT],
        "asked": len(found.history),
    }


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def note(name: str, budget: str, study: Study) -> str:
    """Return what stands on top of the experiment in MLflow, in Markdown."""
    return f"**{question(name)}**\n\n{study.note(budget)}"
