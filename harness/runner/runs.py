"""What `harness runs` shows: how many trials of each study are on record, or each trial of one."""

import re
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness import paths, study
from harness.errors import UserError
from harness.scores import Score, compared
from harness.tracking import RunOnRecord, beside, experiment_name, runs_on_record

STATUSES = {"FINISHED": "finished", "RUNNING": "running", "SCHEDULED": "running", "FAILED": "failed", "KILLED": "killed"}
LONGEST_ARM, GAP = 24, 2  # columns of an arm's name at most, and between two columns
STYLES = {"finished": "", "pruned": "dim", "running": "cyan", "failed": "red", "killed": "yellow"}


@dataclass(frozen=True, kw_only=True)
class Book:
    """The trials of a study and budget on record, in numbers.

    Attributes:
        study: its name.
        budget: its name.
        finished, pruned, running, failed, killed: how many trials' newest runs are so; a search prunes those that promise little.
        first, last: when the first was begun and the last ended or begun, in local time.
        seconds: of all trials that ended, together.
        report: the file of the report; None if there is none on this machine.
    """

    study: str
    budget: str
    finished: int
    pruned: int
    running: int
    failed: int
    killed: int
    first: str
    last: str
    seconds: float
    report: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON document has it."""
        return asdict(self)

    @property
    def in_words(self) -> str:
        """How many trials are finished, and what became of the others."""
        counts = {name: getattr(self, name) for name in ("pruned", "running", "failed", "killed")}
        return ", ".join([f"{self.finished} finished", *(f"{count} {name}" for name, count in counts.items() if count)])


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The trials of a study and budget on record, one by one.

    Attributes:
        study: its name.
        budget: its name.
        scores: the rows of its scores.
        runs: the newest run of each trial.
    """

    study: str
    budget: str
    scores: Mapping[str, Score]
    runs: Sequence[RunOnRecord]

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON document has it."""
        trials = [
            {
                "arm": r.tags.get("arm", ""),
                "seed": int(r.tags.get("seed", 0)),
                "status": _status(r),
                "run": r.run,
                "begun": _time(r.begun),
                "seconds": r.seconds,
                "failure": r.tags.get("failure"),
                "scores": dict(r.metrics),
            }
            for r in self.runs
        ]
        return {"study": self.study, "budget": self.budget, "report": _report(self.study, self.budget), "trials": trials}


def of_all(budget: str = "") -> list[Book]:
    """Return the numbers of every study and budget on record, or of those with this budget, the newest first.

    Raises:
        UserError: nothing is on record.
        MachineError: the tracking store cannot be read.
    """
    by_book: dict[tuple[str, str], list[RunOnRecord]] = {}
    for run in runs_on_record():
        by_book.setdefault((run.tags.get("study", "?"), run.tags.get("budget", "?")), []).append(run)
    chosen = {key: runs for key, runs in by_book.items() if budget in ("", key[1])}
    if not chosen:
        which = f" with the budget {budget!r}" if budget else ""
        others = f"\non record: {', '.join(sorted({of for _, of in by_book}))}" * bool(by_book)
        train = f"train a study: {paths.command('study', name='...')}"
        raise UserError(f"no run{which} is on record in {paths.mlruns()}\n{train}{others}")
    books = [_book(name, of, runs) for (name, of), runs in chosen.items()]
    return sorted(books, key=lambda book: book.last, reverse=True)


def of_study(reference: str, budget: str) -> Trials:
    """Return the trials of a study and budget on record.

    Raises:
        UserError: none is, or there is no such study.
        MachineError: the tracking store cannot be read.
    """
    runs = runs_on_record(reference, budget)  # of a study whose file is gone, too
    if runs:
        return Trials(study=reference, budget=budget, scores=_scores(reference), runs=runs)
    study.check(reference, budget)
    loaded = study.load(reference)
    runs = runs_on_record(loaded.name, budget)
    if not runs:
        run = paths.command("study", name=reference, budget=budget)
        raise UserError(f"no run of {loaded.name} ({budget} budget) is on record\ntrain it: {run}{beside(loaded.name, budget)}")
    return Trials(study=loaded.name, budget=budget, scores=loaded.study.scores, runs=runs)


def show_studies(books: Sequence[Book], console: Console) -> None:
    """Print the numbers of studies and budgets, and where their reports are."""
    width = max(len(f"{book.study} ({book.budget})") for book in books)
    for book in books:
        title = Text(f"{book.study} ({book.budget})".ljust(width))
        title.stylize("bold", 0, len(book.study))
        console.print(title.append(f"  {book.last[:16]}  {book.in_words}"), soft_wrap=True, highlight=False)
        console.print(f"  {_near(book.report) if book.report else 'no report on this machine'}", soft_wrap=True, highlight=False)
    console.print(f"each trial of one: {paths.command('runs', name='...', budget='...')}", style="dim", highlight=False)


def show_trials(trials: Trials, console: Console) -> None:
    """Print a line a trial, with as many of the headline scores as the terminal has room for."""
    arms = [r.tags.get("arm", "?") for r in trials.runs]
    unfinished = any(r.status != "FINISHED" for r in trials.runs)
    taken = min(max(map(len, arms)), LONGEST_ARM) + len("seed") + len("seconds") + len(trials.runs[0].run) + 4 * GAP
    room = console.width - taken - unfinished * (len("finished") + GAP)
    columns = [c for score in _headlines(trials.scores) if (c := _column(score, trials.runs))]
    ends = accumulate(1 + GAP + max(map(len, (*heading.split(), *values))) for heading, values in columns)
    shown = [column for column, end in zip(columns, ends, strict=True) if end <= room]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0), collapse_padding=True)
    table.add_column("arm", no_wrap=True, max_width=LONGEST_ARM)
    table.add_column("seed", justify="right")
    if unfinished:
        table.add_column("status", no_wrap=True)
    for heading, _ in shown:
        table.add_column(heading, justify="right")
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("run", no_wrap=True)
    for i, (arm, r) in enumerate(zip(arms, trials.runs, strict=True)):
        status, seconds = _status(r), "-" if r.seconds is None else f"{r.seconds:.1f}"
        told = [Text(status, STYLES[status])] if unfinished else []
        table.add_row(Text(arm), r.tags.get("seed", "?"), *told, *(values[i] for _, values in shown), seconds, r.run)
    book = _book(trials.study, trials.budget, trials.runs)
    console.print(f"{book.study} ({book.budget} budget): {book.in_words}; {book.first[:16]} to {book.last[:16]}", highlight=False)
    console.print(table)
    for run in (r for r in trials.runs if r.status == "FAILED"):
        why = run.tags.get("failure", "unknown").strip().partition("\n")[0]
        line = f"{run.tags.get('arm', '?')} / seed {run.tags.get('seed', '?')} failed: {why}"
        console.print(Padding(Text(line, "red"), (0, 0, 0, 0), expand=False))
    if book.report:
        console.print(f"report: {_near(book.report)}", soft_wrap=True, highlight=False)


def _book(name: str, budget: str, runs: Sequence[RunOnRecord]) -> Book:
    """Return the numbers of a study and budget."""
    counts = Counter(map(_status, runs))
    return Book(
        study=name,
        budget=budget,
        finished=counts["finished"],
        pruned=counts["pruned"],
        running=counts["running"],
        failed=counts["failed"],
        killed=counts["killed"],
        first=_time(min(r.begun for r in runs)),
        last=_time(max(r.ended or r.begun for r in runs)),
        seconds=sum(r.seconds or 0 for r in runs),
        report=_report(name, budget),
    )


def _status(run: RunOnRecord) -> str:
    """Return the status of a run in a word."""
    return "pruned" if run.pruned else STATUSES[run.status]


def _scores(reference: str) -> Mapping[str, Score]:
    """Return the rows of a study's scores; those of the package if its file is gone or broken."""
    try:
        return study.load(reference).study.scores
    except UserError:
        return study.SCORES


def _headlines(scores: Mapping[str, Score]) -> list[Score]:
    """Return the scores of the test set that are shown where there is room for few, those that compare any models first."""
    rows = [s for section in compared(scores).values() for s in section]
    return [s for s in rows if s.headline and s.better and s.images == "test"]


def _column(score: Score, runs: Sequence[RunOnRecord]) -> tuple[str, list[str]] | None:
    """Return the heading of a score, without its unit, and its value of each run; None if no run has it."""
    if not any(score.key in r.metrics for r in runs):
        return None
    heading = re.sub(r" \([^()]*\)", "", score.heading).replace(" ↓", "\u00a0↓").replace(" ↑", "\u00a0↑")
    return heading, [score.text(r.metrics[score.key]) if score.key in r.metrics else "-" for r in runs]


def _report(name: str, budget: str) -> str | None:
    """Return the file of a report; None if there is none on this machine."""
    page = paths.mlruns() / "reports" / experiment_name(name, budget) / "report.html"
    return str(page) if page.is_file() else None


def _near(path: str) -> str:
    """Return a path as it is typed in the working folder, in a shell."""
    return shlex.quote(str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path)


def _time(milliseconds: int) -> str:
    """Return a time in local time, as ISO 8601 has it but for the blank, such as 2026-11-28 02:49:06."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(milliseconds / 1000))
