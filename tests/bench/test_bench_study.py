"""A study beside the usual loop: what is said of given times, that it stands still meanwhile, and what is not compared."""

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness.bench import study as whole
from harness.errors import MachineError


def said(monkeypatch: pytest.MonkeyPatch, seconds: float) -> tuple[int, str]:
    """At 12, 13 and 17 ms a step; the study of 36 trials takes `seconds`. A trial has 50 epochs of 391 steps."""
    monkeypatch.setattr(whole, "_interleaved", lambda name, budget, look: (seconds, [12.0, 13.0, 17.0]))
    console = Console(file=io.StringIO(), width=200)
    return whole.compare(console), console.file.getvalue()


def test_the_ratio_is_of_as_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = 50 * 391 * 13e-3
    code, words = said(monkeypatch, 36 * usual / 6.5)
    assert code == 0
    assert "ok     36 trials of 50 epochs, 19,550 steps: 39.1 s each" in words
    assert "13.0 ms (12.0 to 17.0, 3 looks): 254 s for so many steps" in words
    assert "6.5 times faster, 6 are asked for" in words


def test_too_slow_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    code, words = said(monkeypatch, 36 * 50 * 391 * 13e-3 / 5.9)
    assert code == 1
    assert "MISSED" in words


def test_a_study_that_fails_is_not_compared(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    with pytest.raises(MachineError, match="exit code 2: nothing to compare"):
        whole._interleaved("no_such_study", "default", float)


def as_study(monkeypatch: pytest.MonkeyPatch, body: str, every_s: float) -> None:
    """A process that runs `body` in the place of a study."""

    def started(command: list[str], **options: object) -> subprocess.Popen:
        return popen([sys.executable, "-c", body], **options)

    popen = subprocess.Popen
    monkeypatch.setattr(whole, "EVERY_S", every_s)
    monkeypatch.setattr(whole.subprocess, "Popen", started)


TICKS = "import pathlib, time\nfor i in range({ticks}):\n    pathlib.Path({file!r}).write_text(str(i))\n    time.sleep(0.05)"


def test_the_study_stands_still_for_each_look_and_is_not_charged_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ticks"
    as_study(monkeypatch, TICKS.format(file=str(file), ticks=40), every_s=0.7)
    moved = []

    def look() -> float:
        time.sleep(0.2)  # a write that had begun has ended
        before = file.read_text()
        time.sleep(1.0)
        moved.append(file.read_text() != before)
        return 10.0 + len(moved)

    started = time.perf_counter()
    took, looks = whole._interleaved("ticks", "default", look)
    assert looks == [10.0 + i for i in range(1, len(moved) + 1)]
    assert moved == [False] * len(moved) != []
    assert took == pytest.approx(time.perf_counter() - started - 1.2 * len(looks), abs=0.3)


def test_a_study_that_ends_at_once_is_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    as_study(monkeypatch, "", every_s=60)
    with pytest.raises(MachineError, match="within 60 s: too short"):
        whole._interleaved("nothing", "default", float)


def test_what_breaks_a_look_ends_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ticks"
    as_study(monkeypatch, TICKS.format(file=str(file), ticks=1200), every_s=0.7)

    def look() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        whole._interleaved("ticks", "default", look)
    before = file.read_text()
    time.sleep(0.3)
    assert file.read_text() == before != "1199"
