"""The page of promises names tests that there are, and every bad input and case has at least one."""

import ast
import re
from pathlib import Path

import pytest
from reliability import PAGE, ROOM, Case, count, counted, ids, rows

from harness import paths

PAGE_TEXT = PAGE.read_text(encoding="utf-8")
NAMED = sorted({test for row in rows(PAGE_TEXT) for test in row.tests})
INPUTS = [*(f"row{n:02d}" for n in range(1, 55)), *(f"R{n}" for n in range(1, 19))]


@pytest.mark.parametrize("test", NAMED)
def test_a_test_that_the_page_names_exists(test: str) -> None:
    file, _, function = test.partition("::")
    tree = ast.parse((paths.PROJECT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
    assert functions
    assert function in ("", *functions)


def test_every_bad_input_has_its_row_on_the_page() -> None:
    assert [row.id for row in rows(PAGE_TEXT) if row.id] == INPUTS


def test_every_bad_input_has_tests() -> None:
    sources = [file.read_text(encoding="utf-8") for file in (paths.PROJECT / ROOM).glob("test_*.py") if file != Path(__file__)]
    names = [name for text in sources for name in re.findall(r"(?:def |[\"'])((?:test_)?[rR]\w[\w-]*)", text)]
    shown = {row for name in names for row in ids(name)}
    assert [row.id for row in rows(PAGE_TEXT) if row.id and not row.tests and row.id not in shown] == []


def test_cases_are_counted_where_they_belong() -> None:
    page = "| A promise | `tests/a/test_a.py::test_x`, `tests/b/test_b.py` | 7 |\n| row01 | A name: 2 | | |\nA line."
    cases = [
        Case("tests/a/test_a.py", "test_x[1]", "passed"),
        Case("tests/a/test_a.py", "test_xy", "failed"),
        Case("tests/b/test_b.py", "test_z", "skipped"),
        Case(f"{ROOM}/test_c.py", "test_refused[row01-a name]", "passed"),
        Case(f"{ROOM}/test_c.py", "test_refused[row011-a name]", "failed"),
    ]
    assert counted(page, cases).splitlines() == [
        "| A promise | `tests/a/test_a.py::test_x`, `tests/b/test_b.py` | 1, 1 skipped |",
        "| row01 | A name: 2 | | 1 |",
        "A line.",
    ]
    assert count(cases) == "2, 2 failed, 1 skipped"
