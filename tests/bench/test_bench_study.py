"""A study beside the usual loop: what is said of given times, that it stands still meanwhile, and what is not compared."""

import io
import json
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness import study
from harness.bench import study as whole
from harness.errors import MachineError, UserError


def said(seconds: float, **choice: str) -> tuple[int, str]:
    """At 12, 13 and 17 ms a step; the whole study takes `seconds`."""
    console = Console(file=io.StringIO(), width=200)
    code = whole.compare(console, **choice, interleave=lambda command, look, every_s: (seconds, [12.0, 13.0, 17.0]))
    return code, console.file.getvalue()


LONG_S = 50 * 391 * 13e-3  # of the usual loop: a trial has 50 epochs of 391 steps


def test_the_ratio_is_of_as_many_steps() -> None:
    code, words = said(36 * LONG_S / 8.5)
    assert code == 0
    assert "learning_rate, long budget; every 60 s it stands still" in words
    assert "ok     36 trials of 50 epochs, 19,550 steps: 29.9 s each" in words
    assert "13.0 ms (12.0 to 17.0, 3 looks): 254 s for so many steps" in words
    assert "8.5 times faster, 8 are asked for" in words


def test_the_default_budget_has_a_study_and_a_bar_of_its_own() -> None:
    plan = study.load_study("loss_ablation")
    trials, usual_s = len(plan.cells("default")), plan.budgets["default"].epochs * 391 * 13e-3
    code, words = said(trials * usual_s / 4.6, budget="default")
    assert code == 0
    assert "loss_ablation, default budget; every 30 s it stands still" in words
    assert "4.6 times faster, 4.5 are asked for" in words
    assert said(trials * usual_s / 4.4, budget="default")[0] == 1
    assert "activation_ablation, default budget" in said(100.0, budget="default", name="activation_ablation")[1]


def test_too_slow_is_missed() -> None:
    code, words = said(36 * LONG_S / 7.9)
    assert code == 1
    assert "MISSED" in words


@pytest.mark.parametrize(
    ("choice", "words"),
    [({"budget": "smoke"}, "default, long"), ({"name": "learning_rate_search", "budget": "default"}, "such as loss_ablation")],
)
def test_what_is_not_compared_is_said(choice: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        said(1.0, **choice)


def test_nothing_is_kept_from_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MNIST", "features"):
        (tmp_path / "data" / name).mkdir(parents=True)
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    file = tmp_path / "seen.json"
    look = f"""
import json, os, time
seen = [os.environ[name] for name in ("HARNESS_HOME", "HARNESS_DATA", "TORCHINDUCTOR_CACHE_DIR")]
json.dump([seen, [os.path.isdir(folder) and os.listdir(folder) for folder in seen]], open({str(file)!r}, "w"))
time.sleep(1)"""
    whole.interleaved([sys.executable, "-c", look], float, 0.5)
    (home, data, compiled), (at_home, sets, cache) = json.loads(file.read_text())
    assert at_home == ["data"]
    assert sets == ["MNIST"]
    assert not cache
    assert home != str(tmp_path)
    assert {Path(data).parent, Path(compiled).parent} == {Path(home)}


def test_a_study_that_fails_is_not_compared(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    with pytest.raises(MachineError, match="exit code 2: nothing to compare"):
        whole.interleaved(whole.command("no_such_study", "default"), float, 60.0)


TICKS = "import pathlib, time\nfor i in range({ticks}):\n    pathlib.Path({file!r}).write_text(str(i))\n    time.sleep(0.05)"


def ticking(file: Path, ticks: int) -> list[str]:
    """The command of a process that counts in a file, in the place of a study."""
    return [sys.executable, "-c", TICKS.format(file=str(file), ticks=ticks)]


def text(file: Path) -> str:
    return file.read_text() if file.exists() else ""  # it may have been stopped before its first write


def test_the_study_stands_still_for_each_look_and_is_not_charged_for_it(tmp_path: Path) -> None:
    file = tmp_path / "ticks"
    moved = []
    looking_s = 0.0

    def look() -> float:
        nonlocal looking_s
        began = time.perf_counter()
        time.sleep(0.2)  # a write that had begun has ended
        before = text(file)
        time.sleep(1.0)
        moved.append(text(file) != before)
        looking_s += time.perf_counter() - began
        return 10.0 + len(moved)

    started = time.perf_counter()
    took, looks = whole.interleaved(ticking(file, 40), look, every_s=0.7)
    assert looks == [10.0 + i for i in range(1, len(moved) + 1)]
    assert moved == [False] * len(moved) != []
    assert took == pytest.approx(time.perf_counter() - started - looking_s, abs=0.5)  # a look takes more than twice that


def test_a_study_that_ends_at_once_is_too_short() -> None:
    with pytest.raises(MachineError, match="within 60 s: too short"):
        whole.interleaved([sys.executable, "-c", ""], float, 60.0)


def test_what_breaks_a_look_ends_the_study(tmp_path: Path) -> None:
    file = tmp_path / "ticks"

    def look() -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        whole.interleaved(ticking(file, 1200), look, every_s=0.7)
    before = text(file)
    time.sleep(0.3)
    assert text(file) == before != "1199"
