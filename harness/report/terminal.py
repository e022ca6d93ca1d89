"""The report in the terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from harness.queue import SearchTrial
from harness.report.ablation import tables
from harness.report.ablation.results import AblationResults
from harness.report.search import text
from harness.report.search.results import SearchResults


def show(f: AblationResults, console: Console, found: SearchResults | None = None) -> None:
    """The report in the terminal; of a search, what it found and then its test."""
    if found is not None:
        _show_search(f, console, found)
    if not f.arms:
        console.print(text.NO_REFIT if found else "no trial has a result")
        return
    metrics = tables.to_show(f, console.width)
    console.print(f"\n{f.name} ({f.budget} budget): test scores, mean ± sd over n seeds", highlight=False)
    rows = [[cell.replace(" ± ", "±") for cell in row] for row in tables.score_rows(f, metrics)]
    console.print(_table(["arm", "n", *(tables.heading(m) for m in metrics)], rows))
    for words in text.tested(found, f.study) if found else []:
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


def _show_search(f: AblationResults, console: Console, found: SearchResults) -> None:
    console.print(f"\n{f.name} ({f.budget} budget): the search", highlight=False)
    for sentence in text.sentences(found):
        console.print(f" {sentence}", highlight=False)
    title, trials = text.top(found)
    if not trials:
        return
    shown = list(found.parameters)
    while len(shown) > 1 and _width(found, trials, shown) > console.width:
        shown.pop()  # they stand in order of what they matter
    left = len(found.parameters) - len(shown)
    more = f" ({left} further parameter{'s' * (left > 1)} in the report)" if left else ""
    console.print(f"\n{title}{more}", highlight=False)
    console.print(_table(text.headings(found, shown), text.rows(found, trials, shown)))


def _width(found: SearchResults, trials: Sequence[SearchTrial], parameters: Sequence[str]) -> int:
    """Columns of a terminal that a table takes whose headings may break between words."""
    columns = zip(text.headings(found, parameters), *text.rows(found, trials, parameters), strict=True)
    return sum(2 + max(max(map(len, heading.split())), *map(len, cells)) for heading, *cells in columns)
