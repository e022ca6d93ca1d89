"""The page on the library says what happens."""

import doctest

from harness import paths


def test_the_examples_of_the_page_hold() -> None:
    result = doctest.testfile(str(paths.PROJECT / "docs" / "library.md"), module_relative=False)
    assert result.attempted > 10
    assert result.failed == 0
