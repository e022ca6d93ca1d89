"""A finished study as verdicts, tables and figures: in the terminal, as CSV and PNG, and as one self-contained HTML page."""

import base64
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader
from rich import box
from rich.console import Console
from rich.table import Table

from harness import manifest, paths
from harness.report import pictures, tables
from harness.report.findings import Findings
from harness.study import Ablation, question
from harness.tracking import Tracker

__all__ = ["Findings", "folder", "note", "publish", "show"]


def show(f: Findings, console: Console) -> None:
    """The report in the terminal."""
    if not f.arms:
        console.print("no trial has a result")
        return
    metrics = tables.to_show(f, console.width)
    console.print(f"\n{f.name} ({f.budget} budget): test scores, mean ± sd over n seeds", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("arm", no_wrap=True)
    for name in ("n", *(tables.heading(m) for m in metrics)):
        table.add_column(name.replace(" ↓", "\u00a0↓").replace(" ↑", "\u00a0↑"), justify="right")
    for row in tables.score_rows(f, metrics):
        table.add_row(*(cell.replace(" ± ", "±") for cell in row))
    console.print(table)
    for word, colour, verdict, by in tables.verdict_words(f):
        console.print(f" [{colour}]{word:>4}[/]  {verdict.sentence}; {by}{tables.odds(verdict)}", highlight=False, soft_wrap=True)
    for h in f.unjudged:
        console.print(f" [yellow]open[/]  {h}: {tables.NOT_JUDGED}", highlight=False, soft_wrap=True)
    for cell in f.cells:
        if cell.spec.id in f.failures:
            why = f.failures[cell.spec.id]
            console.print(f" [red]fail[/]  {cell.arm} / seed {cell.seed}: {why}", highlight=False, soft_wrap=True)


def folder(name: str, budget: str) -> Path:
    """Where the report's newest copy lies on this machine; another is in the study's parent run."""
    return paths.mlruns() / "reports" / (name if budget == "default" else f"{name}-{budget}")


def publish(f: Findings, tracker: Tracker) -> None:
    """Write the report and close the study's parent run with it, and with the winner as a model."""
    into = folder(f.name, f.budget)
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    if f.arms:
        _write(f, into)
    tags = {f"verdict.{i + 1}": v.sentence for i, v in enumerate(f.verdicts)}
    winner = f.winner
    if winner is not None and tracker.study_tag("winner.cell") != winner.spec.id:
        from harness.winner import decoder_of

        weights = tracker.file(f.records[winner.spec.id].run, "state_dict.pt")
        module, example = decoder_of(winner.spec, weights)
        tags["winner"], tags["winner.cell"] = f"{winner.arm} / seed {winner.seed}", winner.spec.id
        tags["winner.model"] = tracker.log_model(module, example, [f"torch=={manifest.tags()['version.torch'].split('+')[0]}"])
    tracker.finish_study(into, tags)


def _write(f: Findings, into: Path) -> None:
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
    page = Environment(loader=PackageLoader("harness.report", "."), autoescape=True).get_template("page.html")
    html = page.render(
        f=f,
        question=question(f.name),
        not_judged=[f"{h}: {tables.NOT_JUDGED}" for h in f.unjudged],
        tables=[(title, tables.table_of(f, metrics)) for title, metrics in tables.GROUPS.items()],
        differences=[(title, tables.difference_of(f, tables.varying(f, metrics))) for title, metrics in tables.GROUPS.items()]
        if f.arms[1:]
        else [],
        own=tables.own_rows(f) if any(m in f.table for m in tables.OWN) else [],
        own_headings=["arm", *(tables.heading(m) for m in tables.OWN)],
        native_headings=[*tables.NATIVE_HEADINGS, *(label for label, _ in tables.NOTES.values())],
        native=tables.native_rows(f),
        cost=tables.cost_rows(f),
        cost_headings=[label for label, _ in tables.COST.values()],
        verdicts=[
            (*words, tables.odds(words[2]), b) for words, b in zip(tables.verdict_words(f), tables.bootstraps(f), strict=True)
        ],
        images={p: base64.b64encode((into / f"{p}.png").read_bytes()).decode() for p in ("scores", "rate_distortion", "gallery")},
        facts={
            "command": manifest.command(),
            "machine": f.origins("device"),
            "commit of the trials": f.commits,
            "versions": f"torch {f.origins('version.torch')}, Python {f.origins('version.python')}",
            "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        },
    )
    (into / "report.html").write_text(html, encoding="utf-8")


def note(name: str, budget: str, study: Ablation) -> str:
    """What stands on top of the experiment in MLflow, in Markdown."""
    claims = "".join(f"\n- {h}" for h in study.hypotheses)
    return (
        f"**{question(name)}**\n\nBudget `{budget}`: {len(study.arms)} arms x {len(study.budgets[budget].seeds)} seeds, "
        f"{study.budgets[budget].epochs} epochs. Hypotheses, stated before the runs:{claims}\n\n"
        "ELBO = reconstruction - KL, nats per image, beta = 1. Native ELBOs of different likelihoods live on different scales: "
        "compare arms by `test/common_bits`, `test/squared_error`, `test/frechet`, `test/knn15_accuracy`. "
        "The verdicts are in `report.html` among the files of the parent run."
    )
