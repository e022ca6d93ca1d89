"""The report of a finished study in the terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.queue import SearchTrial
from harness.report.ablation import tables
from harness.report.ablation.results import AblationResults
from harness.report.search import tables as search_tables
from harness.report.search.results import SearchResults

NARROWEST = 20  # columns in which words can still be read beside a mark
ASCII = {"\u00a0↓": " (low)", "\u00a0↑": " (high)", "±": "+-", "×": "x"}  # what says the same


def show(
    results: AblationResults, console: Console, search_results: SearchResults | None = None, *, verdicts_only: bool = False
) -> None:
    """Print the report; for a search its trials and then its test. Its tables are left out if the verdicts alone are asked for."""
    if search_results is not None and not verdicts_only:
        _show_search(results, console, search_results)
    if not results.arms:
        console.print(search_tables.NO_REFIT if search_results else "no trial has a result")
        return
    if not verdicts_only:
        _show_scores(results, console)
    for sentence in search_tables.tested(search_results, results.study) if search_results else []:
        _hanging(console, Text(" "), sentence)
    for j in results.judgements:
        by = f"; {j.by}" if j.by else ""
        _line(console, j.mark, j.colour, f"{j.sentence}{by} [{j.standing}]")
    for fault in results.plan.faults:
        _line(console, "plan", "red", fault)
    for sentence in tables.divergences(results):
        _line(console, "void", "red", sentence)
    for cell in results.cells:
        if cell.spec.id in results.failures:
            reason = results.failures[cell.spec.id]
            _line(console, "fail", "red", f"{cell.arm} / seed {cell.seed}: {reason}")


def _show_scores(results: AblationResults, console: Console) -> None:
    """Print the table of test scores, with as many of them as fit."""
    scores = tables.to_show(results, console.width)
    title = f"\n{results.name} ({results.budget} budget): test scores, mean ± sd over n seeds"
    console.print(_written(title, console), highlight=False, markup=False)
    rows = [[cell.replace(" ± ", "±") for cell in row] for row in tables.score_rows(results, scores)]
    console.print(_table(["arm", "n", *(s.heading for s in scores)], rows, console))


def _line(console: Console, mark: str, colour: str, words: str) -> None:
    """Print a coloured mark and words, in which names are shown as they are."""
    _hanging(console, Text.assemble(" ", (f"{mark:>5}", colour), "  "), words)


def _hanging(console: Console, head: Text, words: str) -> None:
    """Print a head and words behind it: in a terminal in lines broken between words, below each other; elsewhere in one line."""
    room = console.width - len(head)
    if not console.is_terminal or room < NARROWEST:
        console.print(head + Text(words), soft_wrap=True)
        return
    for line in Text(words).wrap(console, room):
        line.rstrip()
        console.print(head + line, soft_wrap=True)
        head = Text(" " * len(head))


def _written(text: str, console: Console) -> str:
    """Return a text in characters that the console's stream takes: words for arrows and `+-` for `±` where it is ASCII."""
    if console.encoding.lower().startswith("utf"):
        return text
    for mark, word in ASCII.items():
        text = text.replace(mark, word)
    return text


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> Table:
    """Return a table of text with an arrow for the better direction kept beside each heading."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(headings[0], no_wrap=True)
    for name in headings[1:]:
        table.add_column(_written(name.replace(" ↓", "\u00a0↓").replace(" ↑", "\u00a0↑"), console), justify="right")
    for row in rows:
        table.add_row(*(Text(_written(cell, console)) for cell in row))
    return table


def _show_search(results: AblationResults, console: Console, search_results: SearchResults) -> None:
    """Print the sentences of a search and the table of its best trials, with as many parameters as fit."""
    console.print(f"\n{results.name} ({results.budget} budget): the search", highlight=False, markup=False)
    for sentence in search_tables.sentences(search_results):
        _hanging(console, Text(" "), sentence)
    title, trials = search_tables.top(search_results)
    if not trials:
        return
    parameters = list(search_results.parameters)
    while len(parameters) > 1 and _width(search_results, trials, parameters) > console.width:
        parameters.pop()  # the last one matters least
    omitted = len(search_results.parameters) - len(parameters)
    more = f" ({omitted} further parameter{'s' * (omitted > 1)} in the report)" if omitted else ""
    console.print(f"\n{title}{more}", highlight=False)
    console.print(
        _table(search_tables.headings(search_results, parameters), search_tables.rows(search_results, trials, parameters), console)
    )


def _width(search_results: SearchResults, trials: Sequence[SearchTrial], parameters: Sequence[str]) -> int:
    """Return the columns of a terminal that a table takes if its headings may break between words."""
    columns = zip(
        search_tables.headings(search_results, parameters), *search_tables.rows(search_results, trials, parameters), strict=True
    )
    return sum(2 + max(max(map(len, heading.split())), *map(len, cells)) for heading, *cells in columns)
