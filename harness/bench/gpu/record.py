"""Results of the checks of a GPU: kept step by step in one JSON file, and shown as a table for the terminal and as Markdown."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

DONE, FAILED, TIMED_OUT, LEFT_OUT = "done", "failed", "timed out", "left out"
OK, MISSED, UNJUDGED = "ok", "MISSED", "-"
FILE, ROWS, PAGE, LOG = "results.json", "rows.jsonl", "gpu.md", "log.txt"


class Row(NamedTuple):
    """One measurement.

    Attributes:
        name: of what is measured.
        value: with its unit, in words.
        goal: that the value is held against, in words; empty if there is none.
        ok: whether the goal is met; None where nothing is judged.
        number: the value in the unit of its step; None if it is no number.
    """

    name: str
    value: str
    goal: str = ""
    ok: bool | None = None
    number: float | None = None

    @property
    def mark(self) -> str:
        """The judgement in a word."""
        return UNJUDGED if self.ok is None else OK if self.ok else MISSED


@dataclass
class StepResult:
    """What is known of a step.

    Attributes:
        status: DONE, FAILED, TIMED_OUT or LEFT_OUT.
        seconds: that its newest run took.
        reason: why it is not done, in words.
        card: the device in words.
        commit: of the code; `unknown` outside a repository.
        date: of the newest run.
        toy: True if it was taken at toy size.
        cases: the rows by case. A case that is here is not taken again.
        faults: the messages of cases that failed, by case.
    """

    status: str = FAILED
    seconds: float = 0.0
    reason: str = ""
    card: str = ""
    commit: str = ""
    date: str = ""
    toy: bool = False
    cases: dict[str, list[Row]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        """The rows of all cases."""
        return [row for rows in self.cases.values() for row in rows]

    @property
    def missed(self) -> int:
        """The number of goals that were missed."""
        return sum(row.ok is False for row in self.rows)


class Results:
    """The results in a folder.

    `results.json` is written whole or not at all. While a step runs, its process appends a line per case to `rows.jsonl`, which
    `collect` moves into the results; lines of a run that was killed are found there by the next one.

    Attributes:
        out: the folder.
        steps: the results by name of the step.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        out.mkdir(parents=True, exist_ok=True)
        file = out / FILE
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        self.steps = {name: _step_result(values) for name, values in known.items()}
        self.collect()

    def of(self, step: str) -> StepResult:
        """Return what is known of a step."""
        return self.steps.setdefault(step, StepResult())

    def forget(self, *, toy: bool) -> None:
        """Leave out what was taken at toy size, or else all that was not."""
        self.steps = {name: result for name, result in self.steps.items() if result.toy != toy}

    def collect(self) -> None:
        """Move the lines that processes of steps have left into the results, and save them."""
        file = self.out / ROWS
        if not file.exists():
            return
        for line in _whole_lines(file):
            result = self.of(line["step"])
            result.card = line["card"]
            if "fault" in line:
                result.faults[line["case"]] = line["fault"]
            else:
                result.faults.pop(line["case"], None)
                result.cases[line["case"]] = [Row(*row) for row in line["rows"]]
        self.save()
        file.unlink()

    def save(self) -> None:
        """Write all results, whole or not at all."""
        text = json.dumps({name: asdict(result) for name, result in self.steps.items()}, indent=1)
        scratch = self.out / f"{FILE}.part"
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self.out / FILE)


def _step_result(values: Mapping[str, Any]) -> StepResult:
    """Return the result that `asdict` gave these values."""
    cases = {case: [Row(*row) for row in rows] for case, rows in values["cases"].items()}
    return StepResult(**{**values, "cases": cases})


def _whole_lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file of JSON lines; the last one may have been cut short by a kill."""
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def note(file: Path, **facts: Any) -> None:
    """Append a line to a file of JSON lines."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(facts) + "\n")


# -------------------------------------------------------------------------------- tables


def table(results: Results, titles: Mapping[str, str]) -> Iterator[tuple[str, Row]]:
    """Yield the step of each row and the row, in the order of `titles`, and a row for each step or case without a value."""
    for name in titles:
        if name not in results.steps:
            continue
        result = results.steps[name]
        for row in (*result.rows, *_worst(result.rows)):
            yield name, row
        for case, fault in result.faults.items():
            yield name, Row(case, f"FAILED: {fault}")
        if result.status != DONE:
            yield name, Row("", f"{result.status.upper()} {result.reason}".strip())


def _worst(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the worst row of those that have numbers and share a goal, if they are several."""
    numbered = [row for row in rows if row.number is not None and row.goal]
    if len(numbered) > 1 and len({row.goal for row in numbered}) == 1:
        worst = max(numbered, key=lambda row: row.number or 0.0)
        yield worst._replace(name=f"worst of {len(numbered)}: {worst.name}")


def lines(results: Results, titles: Mapping[str, str]) -> Iterator[str]:
    """Yield the table as text for a terminal."""
    for name, row in table(results, titles):
        goal = f"  (goal {row.goal})" if row.goal else ""
        yield f"{row.mark:<6} {name}: {f'{row.name}: ' if row.name else ''}{row.value}{goal}"


def page(results: Results, titles: Mapping[str, str], caption: str) -> str:
    """Return the table as Markdown, under a heading with the card's name."""
    known = [results.steps[name] for name in titles if name in results.steps]
    cards, commits, dates = (
        ", ".join(dict.fromkeys(getattr(r, fact) for r in known if getattr(r, fact))) for fact in ("card", "commit", "date")
    )
    rows = [
        f"| {name} | {_cell(row.name)} | {_cell(row.value)} | {_cell(row.goal)} | {row.mark} |"
        for name, row in table(results, titles)
    ]
    legend = [f"- `{name}`: {title}" for name, title in titles.items() if name in results.steps]
    heading = [f"## {cards or 'unknown card'}", "", "| step | what | measured | goal | |", "|---|---|---|---|---|"]
    return "\n".join([*heading, *rows, "", *legend, "", f"{caption} {dates}, commit {commits}.", ""])


def _cell(text: str) -> str:
    """Return a text in which nothing ends a cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def digits(number: float) -> str:
    """Return a number above 0 with three significant digits, and all digits of its whole part."""
    return f"{number:,.{max(0, 2 - math.floor(math.log10(number)))}f}"
