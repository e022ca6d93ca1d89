import doctest
import importlib

import pytest

from harness import paths

MODULES = [
    ".".join(f.relative_to(paths.PROJECT).with_suffix("").parts)
    for f in sorted((paths.PROJECT / "harness").rglob("*.py"))
    if ">>> " in f.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert result.attempted > 0
    assert result.failed == 0


def test_there_are_examples() -> None:
    assert {"harness.spec.trial", "harness.models.activations", "harness.stats.paired"} <= set(MODULES)
