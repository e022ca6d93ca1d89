"""A finished study as verdicts, tables and figures: in the terminal, as CSV and PNG, and as one self-contained HTML page."""

import base64
import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader
from rich import box
from rich.console import Console
from rich.table import Table

from harness import manifest, paths
from harness.report import pictures
from harness.report.findings import Findings
from harness.stats import Paired, Verdict, summary
from harness.study import SCORES, Ablation, question
from harness.tracking import Tracker

__all__ = ["Findings", "folder", "note", "publish", "show"]

FAIR = tuple(name for name, s in SCORES.items() if name.startswith("test/") and not s.native)
BRIEF = ("test/squared_error", "test/ssim", "test/knn15_accuracy", "test/kl")  # what 80 columns hold
WIDE = 120
NATIVE = ("test/elbo", "test/recon")
COST = {
    "perf/step_ms_p50": ("step (ms, median)", 2),
    "perf/images_per_s": ("images/s", 0),
    "perf/train_s": ("training (s)", 1),
}
MARKS = {"confirmed": ("yes", "green"), "refuted": ("no", "red"), "not shown": ("open", "yellow")}


def number(value: float, digits: int) -> str:
    """A number to read; a dash where there is none."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation over seeds."""
    s = summary(values)
    return number(s.mean, digits) + (f" ± {number(s.spread, digits)}" if s.n > 1 else "")


def interval(d: Paired, digits: int) -> str:
    """A paired difference with its interval."""
    bounds = f" [{d.low:+.{digits}f}, {d.high:+.{digits}f}]" if np.isfinite(d.low) else ""
    return f"{d.mean:+.{digits}f}{bounds}"


def heading(metric: str) -> str:
    """A score's label with the way that is better."""
    s = SCORES[metric]
    return s.label + {"lower": " ↓", "higher": " ↑", "": ""}[s.better]


def score_rows(f: Findings, metrics: Sequence[str]) -> list[list[str]]:
    """Per arm: its name, number of seeds, and these scores."""
    return [
        [arm, str(len(f.by_seed(arm, FAIR[0]))), *(spread(f.by_seed(arm, m), SCORES[m].digits) for m in metrics)] for arm in f.arms
    ]


def varying(f: Findings) -> list[str]:
    """The scores that are not the same for every trial: at z = 2 all latents are active, and a column of zeros says nothing."""
    return [m for m in FAIR if f.table[m].nunique() > 1]


def difference_rows(f: Findings, metrics: Sequence[str]) -> list[list[str]]:
    """Per arm but the first: paired differences to the first."""
    return [
        [f"{arm} - {f.arms[0]}", *(interval(f.difference(arm, f.arms[0], m), SCORES[m].digits) for m in metrics)]
        for arm in f.arms[1:]
    ]


def native_rows(f: Findings) -> list[tuple[str, list[list[str]]]]:
    """Per scale: its arms with ELBO, reconstruction, the ELBO's Monte Carlo error, and the model's own pixel noise."""
    return [
        (
            scale,
            [
                [
                    arm,
                    *(spread(f.by_seed(arm, m), SCORES[m].digits) for m in NATIVE),
                    number(max(f.by_seed(arm, "test/elbo_mc_error")), 3),
                    spread(f.by_seed(arm, "test/noise_scale"), 4) if f.has(arm, "test/noise_scale") else "-",
                ]
                for arm in arms
            ],
        )
        for scale, arms in f.scales.items()
    ]


def cost_rows(f: Findings) -> list[list[str]]:
    """Per arm: what a trial costs."""
    return [[arm, *(spread(f.by_seed(arm, m), digits) for m, (_, digits) in COST.items())] for arm in f.arms]


def verdict_words(f: Findings) -> list[tuple[str, str, Verdict, str]]:
    """Per hypothesis: yes/no/open, its colour, the verdict, and by how much better, with the interval."""
    digits = [SCORES[h.metric].digits for h in f.judged]
    return [(*MARKS[v.outcome], v, interval(v.difference, d)) for v, d in zip(f.verdicts, digits, strict=True)]


def show(f: Findings, console: Console) -> None:
    """The report in the terminal."""
    if not f.arms:
        console.print("no trial has a result")
        return
    metrics = FAIR if console.width >= WIDE else BRIEF
    console.print(f"\n{f.name} ({f.budget} budget): test scores, mean ± sd over n seeds", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("arm", no_wrap=True)
    for name in ("n", *(heading(m) for m in metrics)):
        table.add_column(name.replace(" ↓", "\u00a0↓").replace(" ↑", "\u00a0↑"), justify="right")
    for row in score_rows(f, metrics):
        table.add_row(*(cell.replace(" ± ", "±") for cell in row))
    console.print(table)
    for word, colour, verdict, by in verdict_words(f):
        console.print(f" [{colour}]{word:>4}[/]  {verdict.sentence}; better by {by}", highlight=False, soft_wrap=True)
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
    headings = ["arm", "n", *(heading(m) for m in FAIR)]
    f.table.to_csv(into / "trials.csv", index=False)
    pd.DataFrame(score_rows(f, FAIR), columns=headings).to_csv(into / "arms.csv", index=False)
    plain = [{"claim": v.sentence, "outcome": v.outcome, "p_holm": v.p_adjusted} for v in f.verdicts]
    (into / "verdicts.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")
    pictures.scores(f.table, f.arms, [m for m in FAIR if SCORES[m].better], into / "scores.png")
    pictures.gallery(f.pictures, into / "gallery.png")
    page = Environment(loader=PackageLoader("harness.report", "."), autoescape=True).get_template("page.html")
    html = page.render(
        f=f,
        question=question(f.name),
        headings=headings,
        fair=score_rows(f, FAIR),
        differences=difference_rows(f, varying(f)),
        difference_headings=["difference", *(heading(m) for m in varying(f))],
        native=native_rows(f),
        cost=cost_rows(f),
        cost_headings=[label for label, _ in COST.values()],
        verdicts=verdict_words(f),
        images={p: base64.b64encode((into / f"{p}.png").read_bytes()).decode() for p in ("scores", "gallery")},
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
        "compare arms by `test/squared_error`, `test/ssim`, `test/knn15_accuracy`. "
        "The verdicts are in `report.html` among the files of the parent run."
    )
