"""A finished study as verdicts, tables and figures: in the terminal, as CSV and PNG, and as one self-contained HTML page."""

import base64
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from rich import box
from rich.console import Console
from rich.table import Table

from harness import manifest, paths
from harness.desk import Asked
from harness.report import pictures, search, search_pictures, tables
from harness.report.findings import Findings
from harness.report.search_found import SearchFound
from harness.study import Ablation, Search, question
from harness.tracking import Tracker

__all__ = ["Findings", "SearchFound", "folder", "note", "publish", "show"]


def show(f: Findings, console: Console, found: SearchFound | None = None) -> None:
    """The report in the terminal; of a search, what it found and then its test."""
    if found is not None:
        _show_search(f, console, found)
    if not f.arms:
        console.print(search.NO_REFIT if found else "no trial has a result")
        return
    metrics = tables.to_show(f, console.width)
    console.print(f"\n{f.name} ({f.budget} budget): test scores, mean ± sd over n seeds", highlight=False)
    rows = [[cell.replace(" ± ", "±") for cell in row] for row in tables.score_rows(f, metrics)]
    console.print(_table(["arm", "n", *(tables.heading(m) for m in metrics)], rows))
    for words in search.tested(found, f.study) if found else []:
        console.print(f" {words}", highlight=False, soft_wrap=True)
    for word, colour, verdict, by in tables.verdict_words(f):
        console.print(f" [{colour}]{word:>4}[/]  {verdict.sentence}; {by}{tables.odds(verdict)}", highlight=False, soft_wrap=True)
    for h in f.unjudged:
        console.print(f" [yellow]open[/]  {h}: {tables.NOT_JUDGED}", highlight=False, soft_wrap=True)
    for cell in f.cells:
        if cell.spec.id in f.failures:
            why = f.failures[cell.spec.id]
            console.print(f" [red]fail[/]  {cell.arm} / seed {cell.seed}: {why}", highlight=False, soft_wrap=True)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(headings[0], no_wrap=True)
    for name in headings[1:]:
        table.add_column(name.replace(" ↓", "\u00a0↓").replace(" ↑", "\u00a0↑"), justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _show_search(f: Findings, console: Console, found: SearchFound) -> None:
    console.print(f"\n{f.name} ({f.budget} budget): the search", highlight=False)
    for sentence in search.sentences(found):
        console.print(f" {sentence}", highlight=False)
    title, trials = search.top(found)
    if not trials:
        return
    shown = list(found.parameters)
    while len(shown) > 1 and _width(found, trials, shown) > console.width:
        shown.pop()  # they stand in order of what they matter
    left = len(found.parameters) - len(shown)
    more = f" ({left} further parameter{'s' * (left > 1)} in the report)" if left else ""
    console.print(f"\n{title}{more}", highlight=False)
    console.print(_table(search.headings(found, shown), search.rows(found, trials, shown)))


def _width(found: SearchFound, trials: Sequence[Asked], parameters: Sequence[str]) -> int:
    """Columns of a terminal that a table takes whose headings may break between words."""
    columns = zip(search.headings(found, parameters), *search.rows(found, trials, parameters), strict=True)
    return sum(2 + max(max(map(len, heading.split())), *map(len, cells)) for heading, *cells in columns)


def folder(name: str, budget: str) -> Path:
    """Where the report's newest copy lies on this machine; another is in the study's parent run."""
    return paths.mlruns() / "reports" / (name if budget == "default" else f"{name}-{budget}")


def publish(
    f: Findings,
    tracker: Tracker,
    found: SearchFound | None = None,
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
        from harness.winner import decoder_of

        weights = tracker.file(f.records[winner.spec.id].run, "state_dict.pt")
        module, example = decoder_of(winner.spec, weights)
        tags["winner"], tags["winner.cell"] = f"{winner.arm} / seed {winner.seed}", winner.spec.id
        tags["winner.model"] = tracker.log_model(module, example, [f"torch=={manifest.tags()['version.torch'].split('+')[0]}"])
    tracker.finish_study(into, tags)


def _write(f: Findings, into: Path, found: SearchFound | None) -> None:
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
            "command": manifest.command(),
            "machine": f.origins("device"),
            "commit of the trials": f.commits,
            "versions": f"torch {f.origins('version.torch')}, Python {f.origins('version.python')}" if f.records else "",
            "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        },
    )
    (into / "report.html").write_text(html, encoding="utf-8")


def _tested(f: Findings, into: Path) -> dict[str, Any]:
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
    pictures.scores(f.table, f.arms, [m for m in tables.PLOTTED if m in f.table], into / "scores.png")
    pictures.rate_distortion(f.table, f.arms, into / "rate_distortion.png")
    pictures.gallery(f.pictures, into / "gallery.png")
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


def _searched(f: Findings, found: SearchFound, into: Path) -> dict[str, Any]:
    """Files of a search; returns what the page shows of it."""
    search.table(found).to_csv(into / "search.csv", index=False)
    title, trials = search.top(found)
    names = list(found.parameters)
    return {
        "sentences": search.sentences(found),
        "title": title,
        "headings": search.headings(found, names),
        "rows": search.rows(found, trials, names),
        "figures": [(*words, _base64(into / f"{name}.png")) for name, words in search_pictures.draw(found, into).items()],
        "tested": search.tested(found, f.study) if f.arms else [search.NO_REFIT],
        "asked": len(found.history),
    }


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def note(name: str, budget: str, study: Ablation | Search) -> str:
    """What stands on top of the experiment in MLflow, in Markdown."""
    if isinstance(study, Search):
        return f"**{question(name)}**\n\n{search.note(study, budget)}"
    claims = "".join(f"\n- {h}" for h in study.hypotheses)
    return (
        f"**{question(name)}**\n\nBudget `{budget}`: {len(study.arms)} arms x {len(study.budgets[budget].seeds)} seeds, "
        f"{study.budgets[budget].epochs} epochs. Hypotheses, stated before the runs:{claims}\n\n"
        "ELBO = reconstruction - KL, nats per image, beta = 1. Native ELBOs of different likelihoods live on different scales: "
        "compare arms by `test/common_bits`, `test/squared_error`, `test/frechet`, `test/knn15_accuracy`. "
        "The verdicts are in `report.html` among the files of the parent run."
    )
