"""Whatever people write or hand over: it works, or is refused. The same inputs each time: `make fuzz` tries others."""

import ast
import gc
import sys
from contextlib import suppress

import fuzz
import pytest
from fuzzing import Target, targets, try_out
from fuzzing.bounds import Refusal, attempt, few_calls, little_memory
from hypothesis import strategies as st

from harness.errors import DataError, UserError

TARGETS = targets()
EXAMPLES = 25  # of each target, together about half a minute
SEED = 19


@pytest.mark.parametrize("name", TARGETS)
def test_it_works_or_is_refused(name: str) -> None:
    with little_memory():
        assert try_out(TARGETS[name], EXAMPLES, SEED) >= 1


def _fails_at_seven(number: int) -> None:
    assert number < 7


def test_c10_what_is_found_is_shown_with_its_smallest_input_and_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz, "targets", lambda: {"seven": Target(st.integers(0, 1_000), _fails_at_seven)})
    monkeypatch.setattr(fuzz, "STORES", fuzz.STORES.with_name("nothing.py"))
    assert fuzz.main(["--rounds", "1", "--seed", "3"]) == 1
    told = capsys.readouterr().out
    assert "FOUND in 'seven': AssertionError" in told
    assert "7," in told
    assert "--only 'seven' --seed 3 --rounds 1" in told
    assert fuzz.main(["--rounds", "1", "--seed", "3", "--only", "seven"]) == 1
    assert "7," in capsys.readouterr().out


def test_the_helper_advances_its_seed_and_ends_with_0_if_nothing_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(fuzz, "targets", lambda: {"any": Target(st.integers(), seen.append)})
    monkeypatch.setattr(fuzz, "STORES", fuzz.STORES.with_name("nothing.py"))
    assert fuzz.main(["--rounds", "2", "--seed", "3"]) == 0
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert first != second
    assert f"{len(seen)} inputs of 1 targets from seed 3: nothing found" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr(fuzz, "STORES", fuzz.STORES.with_name("nothing.py"))
    assert fuzz.main(["--seconds", "1", "--only", "arguments"]) == 0


def test_a_refusal_is_held_to_its_exit_code_and_its_length() -> None:
    def refused(error: Exception) -> Refusal:
        def call() -> None:
            raise error

        return attempt(call, 2)

    assert refused(UserError("no")) == Refusal(2, "no")
    for error in (DataError("no"), UserError(""), UserError("x" * 10_000)):
        with pytest.raises(AssertionError):
            refused(error)
    with pytest.raises(KeyError):
        refused(KeyError("x"))


def test_calls_that_others_have_the_garbage_collector_make_are_not_counted() -> None:
    """Hypothesis measures how long collections take, which cut off code that makes many objects, in the middle of ast.parse."""
    called: list[str] = []

    def callback(phase: str, _: object) -> None:
        called.append(phase)

    gc.callbacks.append(callback)
    try:
        with few_calls(1_000):
            ast.parse("X = [" + "f(1), " * 100_000 + "]")
            assert not called
        gc.collect()
        assert called
    finally:
        gc.callbacks.remove(callback)


def test_what_goes_on_for_ever_is_stopped_by_its_calls_also_where_everything_is_caught() -> None:
    def caught_all() -> None:
        while True:
            with suppress(Exception):  # as code that is looked at may do
                len("x")

    before = sys.getprofile()
    with pytest.raises(AssertionError, match="more than 1,000 calls"), few_calls(1_000):
        caught_all()
    assert sys.getprofile() is before
