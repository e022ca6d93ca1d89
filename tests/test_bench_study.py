"""A study beside the usual loop: what is said of given times, and that a study that fails is not compared."""

import io

import pytest
from rich.console import Console

from harness.bench import study as whole
from harness.errors import MachineError


def said(monkeypatch: pytest.MonkeyPatch, seconds: float) -> tuple[int, str]:
    """At 12 ms a step before and 14 after; the study of 36 trials takes `seconds`. A trial has 50 epochs of 391 steps."""
    steps = iter((12.0, 14.0))
    monkeypatch.setattr(whole, "_reference_ms", lambda threads: next(steps))
    monkeypatch.setattr(whole, "_seconds", lambda name, budget: seconds)
    console = Console(file=io.StringIO(), width=200)
    return whole.compare(console), console.file.getvalue()


def test_the_ratio_is_of_as_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = 50 * 391 * 13e-3
    code, words = said(monkeypatch, 36 * usual / 6.5)
    assert code == 0
    assert "ok     36 trials of 50 epochs, 19,550 steps: 39.1 s each" in words
    assert "254 s for so many steps" in words
    assert "6.5 times faster, 6 are asked for" in words


def test_too_slow_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    code, words = said(monkeypatch, 36 * 50 * 391 * 13e-3 / 5.9)
    assert code == 1
    assert "MISSED" in words


def test_a_study_that_fails_is_not_compared(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    with pytest.raises(MachineError, match="exit code 2: nothing to compare"):
        whole._seconds("no_such_study", "default")
