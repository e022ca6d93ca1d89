"""Arrays come out of a pickle, and nothing else does."""

import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tiny_sets import python_2

from harness.data.pickles import KINDS, arrays


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_read(kind: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(kind)
    for content in (python_2({"data": array, "labels": [3, 1, 2]}), pickle.dumps({"data": array, "labels": [3, 1, 2]}, protocol=4)):
        read = arrays(content)
        assert read["labels"] == [3, 1, 2]
        assert read["data"].dtype == array.dtype
        assert np.array_equal(read["data"], array)


def test_text_of_python_2_is_text() -> None:
    assert arrays(b"\x80\x02U\x03\xe9tf.") == "\u00e9tf"


class Caller:
    """Something whose pickle calls a function when it is read."""

    def __init__(self, function: Any, *values: Any) -> None:
        self.call = (function, values)

    def __reduce__(self) -> Sequence[Any]:
        return self.call


@pytest.mark.parametrize(
    ("held", "named"),
    [
        (Caller(os.mkdir, "made"), "posix.mkdir"),
        (Caller(eval, "1 + 1"), "builtins.eval"),
        (Caller(getattr, "text", "upper"), "builtins.getattr"),
        (Caller(np.load, "any.npy"), "numpy.load"),
        (np.array([Caller(os.mkdir, "made")], dtype=object), "'O8'"),
        (np.zeros(2, dtype=[("a", "u1")]), "'V1'"),
        (np.array(["text"]), "'U4'"),
        (np.array([1 + 1j]), "'c16'"),
    ],
)
def test_whatever_else_is_refused(held: Any, named: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"no pickle of arrays: [^\n]*{named}"):
        arrays(pickle.dumps([1, held], protocol=4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"<html>", python_2([1])[:-1], python_2(np.ones(3))[:-40], b"\x80\x02h\x05.", b"\x80\x63."]
)
def test_what_is_no_whole_pickle_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no pickle of arrays: "):
        arrays(content)
