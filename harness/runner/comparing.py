"""The command `harness compare`: two reports side by side, as one table and one page."""

import io
import json as json_format
import re
import shlex
import shutil
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import paths, provenance, report, study
from harness.errors import UserError
from harness.report.comparison import HEADINGS, TIMES_NOTE, Comparison, Side
from harness.report.exports import VERDICTS
from harness.runner.outcome import report_study
from harness.stores.space import full_in_words
from harness.tracking import beside, is_on_record

PAGE = "comparison.html"


@full_in_words()
def compare(a: str, b: str, console: Console, *, out: str = "", json: bool = False) -> int:
    """Compare two studies, budgets, commits, machines or folders. Return the exit code.

    Args:
        a: one side: a study as `harness study` takes it, with @BUDGET behind it unless the default is meant, or a
            folder: that of a report, a frozen study, or another home, of which the other side's study is taken.
        b: the other side.
        console: where the table is shown.
        out: the folder of the page; empty for one in mlruns/reports/.
        json: True to print one JSON document and nothing else.

    Raises:
        UserError: one of them is no study or folder with a report.
    """
    first, second = _side(a, b), _side(b, a)
    if not json:
        for text, side in ((a, first), (b, second)):
            _say_of_other_code(text, side, console)
    comparison = Comparison(first, second)
    if not comparison.pairs:
        raise UserError(
            f"nothing to compare: no arm of {a} ({', '.join(first.arms)}) has the name or the spec of one of {b} "
            f"({', '.join(second.arms)})"
        )
    folder = Path(out).expanduser() if out else paths.mlruns() / "reports" / "compared" / f"{_name(a)}--{_name(b)}"
    page = _write(comparison, folder)
    if json:
        console.print(json_format.dumps(comparison.as_json(), indent=1), soft_wrap=True, highlight=False, markup=False)
        return 0
    _show(comparison, console)
    console.print(f"page: {shlex.quote(str(page))}", soft_wrap=True, highlight=False, markup=False)
    return 0


def _side(text: str, other: str) -> Side:
    """Return the report that a side of the comparison names."""
    folder = Path(text).expanduser()
    if folder.is_dir() and not _is_study(text):
        return Side.of(text, _report_in(folder, other))
    reference, budget = study.with_budget(text)
    study.check(reference, budget)
    loaded = study.load(reference)
    if not is_on_record(loaded.name, budget):
        run = paths.command("study", name=reference, budget=budget)
        others = beside(loaded.name, budget, f"{reference}@{{}}")
        raise UserError(f"no trial of {loaded.name} ({budget} budget) is on record\n{run}{others}")
    report_study(reference, budget, Console(file=io.StringIO()), keep=True)
    return Side.of(f"{loaded.name} ({budget} budget)", report.folder(loaded.name, budget))


def _say_of_other_code(text: str, side: Side, console: Console) -> None:
    """Say that a study of this home was trained by other code than that which is here, which one might think is compared."""
    if not Path(text).expanduser().is_dir() and provenance.commit() not in ("unknown", side.facts["code"]):
        words = f"careful: {side.label} was trained by code {side.facts['code']}; the code here is {provenance.commit()}"
        console.print(words, soft_wrap=True, highlight=False, markup=False)


def _is_study(text: str) -> bool:
    """Return whether a text without a slash names a shipped study, which goes before a folder of that name."""
    return "/" not in text and (paths.studies() / f"{text}.py").is_file()


def _report_in(folder: Path, other: str) -> Path:
    """Return the folder of a report: this one, or that of the other side's study in another home.

    Raises:
        UserError: there is none.
    """
    if (folder / VERDICTS).is_file():
        return folder
    reports = next((f for f in (folder / "mlruns" / "reports", folder / "reports") if f.is_dir()), None)
    if reports is None:
        raise UserError(
            f"{folder} holds neither a report ({VERDICTS}) nor mlruns/reports/\n"
            "give the folder of a report, a frozen study (`harness freeze`), or another home"
        )
    names = sorted(f.name for f in reports.iterdir() if (f / VERDICTS).is_file())
    name, budget = study.with_budget(other)
    wanted = report.folder(Path(name).stem, budget).name
    if wanted not in names:
        raise UserError(f"{reports} has no report {wanted!r}; it has {', '.join(names) or 'none'}: name one, {reports}/NAME")
    return reports / wanted


def _name(text: str) -> str:
    """Return what a side is called in the name of a folder."""
    return re.sub(r"[^\w=.@\[\],-]+", "-", text).strip("-.") or "here"


def _write(comparison: Comparison, folder: Path) -> Path:
    """Write the page and the files for programs into a folder, and return the page's path.

    Raises:
        UserError: the folder holds something else.
    """
    if folder.exists() and not (folder / PAGE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already, and no comparison: name a new folder, or an empty one")
    from jinja2 import Environment, PackageLoader

    from harness.report.comparison_figures import panels

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    comparison.frame().to_csv(folder / "comparison.csv", index=False)
    (folder / "comparison.json").write_text(json_format.dumps(comparison.as_json(), indent=1), encoding="utf-8")
    template = Environment(loader=PackageLoader("harness.report", "."), autoescape=True).get_template("comparison.html")
    html = template.render(
        c=comparison,
        headings=HEADINGS,
        scores={heading: [row.texts for row in rows] for heading, rows in comparison.by_score.items()},
        panels=panels(comparison, folder),
        times_note=TIMES_NOTE * any(row.is_time for rows in comparison.by_score.values() for row in rows),
    )
    (folder / PAGE).write_text(html, encoding="utf-8")
    return folder / PAGE


def _show(comparison: Comparison, console: Console) -> None:
    """Print what differs, the claims, and a table of the scores that differ."""
    say = console.print
    say(Text(f"A: {comparison.a.label}\nB: {comparison.b.label}"))
    say(Text(comparison.headline, "bold"))
    for title, rows in (("what differs", comparison.differences), ("claims", comparison.claims)):
        if rows:
            table = _table([title, "A", "B"])
            for row in rows:
                table.add_row(*map(Text, row))
            say(table)
    if comparison.plan_note:
        say(f"plan: {comparison.plan_note}", style="dim")
    shown = {k: rows for k, rows in comparison.by_score.items() if not all(row.same for row in rows)}
    if shown:
        table = _table(list(HEADINGS))
        for heading, its_rows in shown.items():
            table.add_row(Text(heading, "bold"))
            for line in its_rows:
                table.add_row(*map(Text, [f"  {line.arm}", *line.texts[1:]]))
        say(table)
        say("each interval as if it were the only one: a look at numbers, not a verdict", style="dim")
        if any(row.is_time for rows in shown.values() for row in rows):
            say(TIMES_NOTE, style="dim")


def _table(headings: list[str]) -> Table:
    """Return an empty table whose cells are folded where a terminal is narrow."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
