"""The planted faults fit the tree as it is: whether tests notice them is what `make plant` shows."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import plant
import pytest

FAULTS = plant.faults()
FEWEST = 20


@cache
def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted_and_names_tests_that_exist(fault: plant.Fault) -> None:
    for path, text in plant.planted(fault, plant.PROJECT).items():
        assert path.is_relative_to(plant.PROJECT / "harness")
        assert text != path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            ast.parse(text)  # a fault that no test can import is noticed by anything
    assert fault.tests
    for test in fault.tests:
        file, _, name = test.partition("::")
        assert (plant.PROJECT / file).is_file()
        assert not name or name.partition("[")[0] in names_in(plant.PROJECT / file)


def test_there_are_many_faults_and_no_two_are_one() -> None:
    assert len(FAULTS) >= FEWEST
    assert max(Counter((fault.hunks, fault.tests) for fault in FAULTS).values()) == 1
    assert len({fault.name.partition("-")[0] for fault in FAULTS}) == len(FAULTS)


def patch(folder: Path, head: str, body: str) -> plant.Fault:
    path = folder / "99-any.patch"
    path.write_text(f"{head}\n--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,2 @@\n{body}", encoding="utf-8")
    return plant.read(path)


def test_a_fault_is_in_the_tree_while_its_tests_run_and_then_gone(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("a = 1\nb = 2\nc = 3\n")
    fault = patch(tmp_path, "b is wrong; noticed by tests/x.py tests/y.py::test_b", " a = 1\n-b = 2\n+b = -2\n")
    assert (fault.wrong, fault.tests) == ("b is wrong", ("tests/x.py", "tests/y.py::test_b"))
    with plant.in_tree(fault, tmp_path):
        assert (tmp_path / "x.py").read_text() == "a = 1\nb = -2\nc = 3\n"
    assert (tmp_path / "x.py").read_text() == "a = 1\nb = 2\nc = 3\n"


@pytest.mark.parametrize("text", ["a = 1\nb = 3\n", "a = 1\nb = 2\na = 1\nb = 2\n"])
def test_a_patch_whose_lines_are_gone_or_twice_there_is_stale(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(text)
    fault = patch(tmp_path, "b is wrong; noticed by tests/x.py", " a = 1\n-b = 2\n+b = -2\n")
    with pytest.raises(plant.StaleError, match=r"99-any.* times in x\.py"):
        plant.planted(fault, tmp_path)


@pytest.mark.parametrize(
    ("head", "body"), [("b is wrong", "-b = 2\n+b = -2\n"), ("b is wrong; noticed by tests/x.py", " a = 1\n b = 2\n")]
)
def test_a_patch_that_says_or_changes_nothing_is_refused(head: str, body: str, tmp_path: Path) -> None:
    with pytest.raises(plant.StaleError, match="and then a unified diff"):
        patch(tmp_path, head, body)


@pytest.mark.parametrize(
    ("test", "noticed", "words"),
    [
        ("from x import b\ndef test_b():\n    assert b == 2\n", True, "noticed by test_it.py::test_b"),
        ("from x import a\ndef test_b():\n    assert a == 1\n", False, "NOT NOTICED by test_it.py: pytest exited with 0"),
        ("from x import z\n", False, "NOT NOTICED by test_it.py: pytest exited with 2"),
    ],
)
def test_noticed_is_a_test_that_fails_and_nothing_less(test: str, noticed: bool, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("a = 1\nb = 2\n")
    (tmp_path / "test_it.py").write_text(test)
    fault = patch(tmp_path, "b is wrong; noticed by test_it.py", " a = 1\n-b = 2\n+b = -2\n")
    good, said = plant.verdict(fault, tmp_path, 60)
    assert good == noticed
    assert words in said
