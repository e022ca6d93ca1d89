"""Run the tests that docs/reliability.md names, print its tables with what passed, and write the counts into the page.

    python tests/helpers/reliability.py

The page is the only list of promises. Its last column is counted here: cases that passed, with failures and skipped ones beside.
"""

import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as Xml
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness import paths

PAGE = paths.PROJECT / "docs" / "reliability.md"
ROOM = "tests/reliability"
ROW = re.compile(r"^\| (?P<what>.+?) \| (?P<tests>`[^|]+`) \|(?P<passed>[^|]*)\|$")
INPUT = re.compile(r"^\| (?P<id>row\d\d|R\d+) \| (?P<what>.+?) \|(?P<tests>[^|]*)\|(?P<passed>[^|]*)\|$")


@dataclass(frozen=True)
class Case:
    """A test that ran.

    Attributes:
        file: Its file, from the project's folder.
        name: The function, with its parameters in brackets.
        outcome: passed, failed or skipped.
    """

    file: str
    name: str
    outcome: str

    def of(self, test: str) -> bool:
        """Return whether this is one of the cases that `file.py` or `file.py::function` names."""
        file, _, function = test.partition("::")
        return self.file == file and function in ("", self.name.partition("[")[0])

    def shows(self, row: str) -> bool:
        """Return whether this is a case of a bad input, `row06` or `R4`."""
        return self.file.startswith(f"{ROOM}/") and row in ids(self.name)


def ids(name: str) -> set[str]:
    """Return the bad inputs that a test or one of its parameters is named after.

    >>> sorted(ids("test_a_file[row20-21-cut-off]")), sorted(ids("test_r4_a_home")), sorted(ids("test_row06_sizes"))
    (['row20', 'row21'], ['R4'], ['row06'])
    """
    found = {f"R{n}" for n in re.findall(r"(?<![A-Za-z])R(\d+)(?!\d)|^test_r(\d+)_", name) for n in n if n}
    for first, others in re.findall(r"(?<![a-z])row(\d\d)(?!\d)((?:-\d\d(?!\d))*)", name):
        found |= {f"row{number}" for number in (first, *others.split("-")) if number}
    return found


@dataclass(frozen=True)
class Row:
    """A row of one of the page's tables.

    Attributes:
        id: Of a bad input, `row06` or `R4`; empty if it is a promise.
        what: What it says.
        tests: The tests that hold it, `file.py` or `file.py::function`; an input has those that are named after it too.
    """

    id: str
    what: str
    tests: tuple[str, ...]

    def has(self, case: Case) -> bool:
        """Return whether a case is one of this row."""
        return any(map(case.of, self.tests)) or bool(self.id and case.shows(self.id))

    def line(self, passed: str) -> str:
        """Return the row as the page has it."""
        tests = ", ".join(f"`{test}`" for test in self.tests)
        return "|".join(
            ["", *(f" {cell} ".replace("  ", " ") for cell in ([self.id] * bool(self.id) + [self.what, tests, passed])), ""]
        )


def row_of(line: str) -> Row | None:
    """Return the row that a line of the page is, if it is one."""
    found = INPUT.match(line) or ROW.match(line)
    if found is None:
        return None
    return Row(found.groupdict().get("id", ""), found["what"], tuple(re.findall(r"`([^`]+)`", found["tests"])))


def rows(page: str) -> list[Row]:
    """Return the rows of both tables of the page."""
    return [row for row in map(row_of, page.splitlines()) if row]


def run(files: Iterable[str]) -> list[Case]:
    """Run the tests of these files and return every case."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        arguments = ["-q", "-n", "2", "--dist", "loadfile", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        subprocess.run([sys.executable, "-m", "pytest", *arguments, *files], cwd=paths.PROJECT, check=False)
        return read(report.read_text(encoding="utf-8"))


def read(report: str) -> list[Case]:
    """Return the cases of a JUnit report."""
    cases = []
    for case in Xml.fromstring(report).iter("testcase"):
        failed = case.find("failure") is not None or case.find("error") is not None
        outcome = "failed" if failed else "skipped" if case.find("skipped") is not None else "passed"
        cases.append(Case(case.get("file", ""), case.get("name", ""), outcome))
    return cases


def count(cases: Iterable[Case]) -> str:
    """Return how many passed, with those that did not in words."""
    outcomes = Counter(case.outcome for case in cases)
    others = [f"{outcomes[outcome]} {outcome}" for outcome in ("failed", "skipped") if outcomes[outcome]]
    return ", ".join([str(outcomes["passed"]), *others])


def counted(page: str, cases: list[Case]) -> str:
    """Return the page with its last columns counted anew."""
    found = ((line, row_of(line)) for line in page.splitlines())
    return "".join(f"{row.line(count(filter(row.has, cases))) if row else line}\n" for line, row in found)


def show(page: str, cases: list[Case], console: Console) -> bool:
    """Print both tables and return whether every promise and every input has cases that passed and none that failed."""
    table = Table("promise or input", "passed")
    holds = True
    for row in rows(page):
        outcomes = {case.outcome for case in cases if row.has(case)}
        held = "passed" in outcomes and "failed" not in outcomes
        holds &= held
        said = f"{row.id} {row.what}".replace("**", "").replace("`", "").strip()
        table.add_row(escape(said), count(filter(row.has, cases)) + ("" if held else ": NOT HELD"))
    console.print(table)
    return holds


def main() -> int:
    """Run everything, print and write the page; return 1 if something does not hold."""
    page = PAGE.read_text(encoding="utf-8")
    files = sorted({test.partition("::")[0] for row in rows(page) for test in row.tests} | {ROOM})
    cases = run(files)
    PAGE.write_text(counted(page, cases), encoding="utf-8")
    return 0 if show(page, cases, Console()) else 1


if __name__ == "__main__":
    sys.exit(main())
