"""The files of a report, and what its page shows of them."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import paths, provenance
from harness.errors import counted
from harness.figures.palette import styles
from harness.report import exports
from harness.report.ablation import tables
from harness.report.ablation.results import AblationResults
from harness.report.exports import TextTable
from harness.report.inline import inline
from harness.report.search import tables as search_tables
from harness.report.search.results import SearchResults
from harness.scores import COST, NATIVE, OWN_PMF, TRUST, compared, in_groups
from harness.stats import RULE
from harness.tracking import Tracker, server

FIGURES = ("scores", "rate_distortion", "gallery")  # of the arms
PARTS = "parts"  # the folder of the figures' parts that the page shows


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What the page shows of an arm's first seed: pictures as data URIs, and its codes as an SVG element."""

    arm: str
    images: str
    samples: str
    latents: str


def write(
    results: AblationResults,
    folder: Path,
    *,
    search_results: SearchResults | None,
    question: str,
    made_of: str,
    winner: str,
    tracker: Tracker,
) -> None:
    """Write all files of a report into its folder; figures that lie there already are not drawn again.

    Args:
        results: of the arms.
        folder: of the report.
        search_results: of the search, if the study has one.
        question: that the study asks.
        made_of: the digest of what the report is made of.
        winner: the winner in words.
        tracker: where the pictures of trials and the pages of runs are.
    """
    from jinja2 import (  # it takes a while to import, as matplotlib below, and most commands write no report
        Environment,
        PackageLoader,
    )

    shown = _write_arms(results, folder, question, tracker) if results.arms else {}
    page = Environment(loader=PackageLoader("harness.report", "."), autoescape=True).get_template("page.html")
    html = page.render(
        f=results,
        question=question,
        headline=headline(results),
        made_of=made_of,
        search=_write_search(results, search_results, folder) if search_results else None,
        facts=_facts(results, winner),
        browse=paths.command("ui"),
        files=[name for name in exports.FILES if (folder / name).exists()],
        **shown,
    )
    (folder / "report.html").write_text(html, encoding="utf-8")


def headline(results: AblationResults) -> str:
    """Return in one sentence what came out of a study's claims; empty if it states none."""
    groups: dict[str, list[str]] = {}
    for judgement in results.judgements:
        word = {"yes": "confirmed", "no": "refuted", "equal": "equal"}.get(judgement.mark, "open")
        groups.setdefault(word, []).append(judgement.claim.words)
    parts = [f"{word}: {', and '.join(groups[word])}" for word in ("confirmed", "refuted", "equal", "open") if word in groups]
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _facts(results: AblationResults, winner: str) -> Mapping[str, str]:
    """Return what the page's end says of how the numbers came about, by name; what is empty is left out."""
    chosen = results.study.budgets[results.budget]
    found = results.present_records
    arms, seeds = counted(len(results.study.arms), "arm"), counted(len(chosen.seeds), "seed")
    return {
        "trials": f"{len(found)} of {len(results.cells)}: {arms}, n = {seeds} "
        f"({', '.join(map(str, chosen.seeds))}), the same for all arms",
        "budget": f"{results.budget}: {counted(chosen.epochs, 'epoch')}, {chosen.evaluation} evaluation",
        "data set": f"{results.study.base.dataset} {results.origins('dataset.digest')[:12]}" if found else "",
        "rule": RULE if results.judgements else "",
        "plan": _plan_in_words(results),
        "command": provenance.command(),
        "winner": winner,
        "machine": results.origins("device"),
        "code of the trials": results.commits,
        "versions": f"torch {results.origins('version.torch')}, Python {results.origins('version.python')}" if found else "",
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _plan_in_words(results: AblationResults) -> str:
    """Return the number, digest and time of the plan that the report judges by, and how often its results were looked at."""
    plans = results.plan.plans
    if not plans:
        return ""
    looks = len(results.plan.looks)
    return f"version {len(plans)}, {results.plan.head[:12]}, stated {plans[-1].time}; {looks} look{'s' * (looks != 1)} at results"


def _write_arms(results: AblationResults, folder: Path, question: str, tracker: Tracker) -> dict[str, Any]:
    """Write the files of the judged arms and return what the page shows of them, by variable of the template."""
    exports.write_numbers(results, question, folder)
    groups = {
        "tables": _comparing(results),
        "differences": [] if results.interim else _differences(results),
        "own": _own(results),
        "native": _native(results),
        "cost": [_cost(results)],
    }
    origin = f"study {results.name}, {results.budget} budget, code {results.commits}, {results.origins('device')}"
    for table in (table for group in groups.values() for table in group):
        exports.write_table(table, folder, origin)
    return {
        **groups,
        "diverged": tables.divergences(results),
        "left_out": tables.left_out(results, [score for group in compared(results.scores).values() for score in group]),
        "native_left_out": tables.left_out(results, in_groups(results.scores, NATIVE, TRUST)),
        "trials": _trials(results, tracker),
        "looks": styles(list(results.study.arms)),
        "ids": {arm: f"{i:02d}" for i, arm in enumerate(results.arms)},
        **_figures(results, folder, tracker),
    }


def _comparing(results: AblationResults) -> list[TextTable]:
    """Return the tables of the scores that compare any arms."""
    of = {title: tables.table_of(results, scores) for title, scores in tables.comparing(results).items()}
    return [TextTable(title=title, headings=headings, rows=rows, arms=results.arms) for title, (headings, rows) in of.items()]


def _differences(results: AblationResults) -> list[TextTable]:
    """Return the tables of paired differences to the first arm, of the scores that differ between trials."""
    if not results.arms[1:]:
        return []
    varying = {title: tables.varying(results, scores) for title, scores in tables.comparing(results).items()}
    of = {f"Differences: {title}": tables.difference_of(results, scores) for title, scores in varying.items() if scores}
    return [TextTable(title=title, headings=headings, rows=rows, arms=results.arms[1:]) for title, (headings, rows) in of.items()]


def _own(results: AblationResults) -> list[TextTable]:
    """Return the table of own likelihoods as a pmf of grey levels; none if no arm has one."""
    scores = results.present(in_groups(results.scores, OWN_PMF))
    headings = ["arm", *(score.heading for score in scores)]
    rows = tables.own_rows(results, scores)
    return [TextTable(title=OWN_PMF, headings=headings, rows=rows, arms=results.arms)] if scores else []


def _native(results: AblationResults) -> list[TextTable]:
    """Return the tables of native objectives, one for each scale."""
    headings = tables.native_headings(results)
    return [
        TextTable(title=f"Native: {scale}", headings=headings, rows=rows, arms=[row[0] for row in rows])
        for scale, rows in tables.native_rows(results)
    ]


def _cost(results: AblationResults) -> TextTable:
    """Return the table of what a trial costs."""
    headings = ["arm", *(score.heading for score in in_groups(results.scores, COST))]
    return TextTable(title=COST, headings=headings, rows=tables.cost_rows(results), arms=results.arms)


def _trials(results: AblationResults, tracker: Tracker) -> dict[str, Any]:
    """Return a table of every trial's telling scores: headings, and by arm rows of seed, address of the run, and texts."""
    scores = tables.varying(results, tables.telling(results))
    rows: dict[str, list[tuple[int, str, list[str]]]] = {}
    for cell in results.cells:
        if record := results.records.get(cell.spec.id):
            texts = [tables.number(record.metrics.get(score.key, float("nan")), score.digits) for score in scores]
            rows.setdefault(cell.arm, []).append((cell.seed, f"{server.address()}{tracker.run_path(record.run)}", texts))
    return {"headings": [score.heading for score in scores], "rows": rows}


def _figures(results: AblationResults, folder: Path, tracker: Tracker) -> dict[str, Any]:
    """Draw the figures of the arms that are not there yet, and return what the page shows of them."""
    shown = [score for score in tables.varying(results, tables.telling(results)) if score.better]
    panels = {score.label: folder / PARTS / f"{re.sub(r'[^a-z0-9]+', '-', score.key)}.svg" for score in shown}
    if not (folder / f"{FIGURES[-1]}.png").exists():
        from harness.report.ablation import figures, pictures

        (folder / PARTS).mkdir()
        looks = {arm: look for arm, look in styles(list(results.study.arms)).items() if arm in results.arms}
        figures.scores(results.table, looks, shown, folder / "scores.png")
        for score, file in zip(shown, panels.values(), strict=True):
            figures.score_panel(results.table, looks, score, file)
        figures.rate_distortion(results.table, looks, folder / "rate_distortion.png")
        files = {arm: tracker.file(run, "pictures.npz") for arm, run in results.pictured.items()}
        pictures.draw(files, folder / PARTS, folder / "gallery.png")
    parts = folder / PARTS
    return {
        "panels": [inline(file, f"{label} by arm: a dot per seed, a bar at the mean") for label, file in panels.items()],
        "plane": inline(folder / "rate_distortion.svg", "KL against squared error, a dot per trial, a large mark per arm"),
        "pictures": [
            Pictures(
                arm=arm,
                images=_data_uri(parts / f"{i:02d}-images.png"),
                samples=_data_uri(parts / f"{i:02d}-samples.png"),
                latents=inline(parts / f"{i:02d}-latents.svg", f"posterior means of {arm}"),
            )
            for i, arm in enumerate(results.pictured)
        ],
    }


def _write_search(results: AblationResults, search_results: SearchResults, folder: Path) -> dict[str, Any]:
    """Write the files of the search and return what the page shows of it, by attribute of the template's `search`."""
    from harness.report.search import figures as search_figures

    search_tables.table(search_results).to_csv(folder / "search.csv", index=False)
    title, trials = search_tables.top(search_results)
    names = list(search_results.parameters)
    best = TextTable(
        title=title, headings=search_tables.headings(search_results, names), rows=search_tables.rows(search_results, trials, names)
    )
    if best.rows:
        exports.write_table(best, folder, f"study {results.name}, {results.budget} budget")
    return {
        "sentences": search_tables.sentences(search_results),
        "best": best,
        "figures": [
            (name, *words, inline(folder / f"{name}.svg", words[0]))
            for name, words in search_figures.draw(search_results, folder).items()
        ],
        "tested": search_tables.tested(search_results, results.study) if results.arms else [search_tables.NO_REFIT],
        "asked": len(search_results.history),
    }


def _data_uri(file: Path) -> str:
    """Return a PNG as the address of an image within a page."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
