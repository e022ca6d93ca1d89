"""What a comparison says beside its numbers: why digests of plans differ, and of times that they may not compare."""

import io
import shlex
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from harness.report.comparison import PLAN_NOTE, TIMES_NOTE, Comparison, Side
from harness.runner import comparing


def side(label: str, plan: str, *claims: str, seconds: float = 1.0) -> Side:
    """A report of one arm and one seed."""
    verdicts = [{"claim": claim, "metric": "test/squared_error", "outcome": "not shown"} for claim in claims]
    facts = {"plan": plan, "code": "unknown", "arms": {"mse": {"spec": {}}}, "verdicts": verdicts}
    row = {"arm": "mse", "seed": 0, "run": "r", "test/squared_error": 2.0, "perf/train_s": seconds}
    return Side(label, facts, pd.DataFrame([row]))


@pytest.mark.parametrize(
    ("other", "notes"),
    [
        (side("B", "d1", "x beats y", seconds=2.0), {TIMES_NOTE}),
        (side("B", "d2", "x beats y"), {PLAN_NOTE}),
        (side("B", "d2", "y beats x", seconds=2.0), {TIMES_NOTE}),
    ],
    ids=["times", "digests", "claims and times"],
)
def test_notes_stand_where_they_are_of_use(other: Side, notes: set[str], tmp_path: Path) -> None:
    comparison, screen = Comparison(side("A", "d1", "x beats y"), other), Console(file=io.StringIO(), width=1_000)
    comparing._show(comparison, screen)
    html = comparing._write(comparison, tmp_path / "page").read_text(encoding="utf-8").replace("&#39;", "'")
    for text in (screen.file.getvalue(), html):
        assert {note for note in (PLAN_NOTE, TIMES_NOTE) if note in text} == notes


def test_a_path_of_a_changed_study_is_printed_as_a_shell_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, sides = Console(file=io.StringIO(), width=1_000), iter((side("A", "d1"), side("B", "d1")))
    monkeypatch.setattr(comparing, "_side", lambda *_: next(sides))
    folder = tmp_path / "study[arms=bce+mse,latent=10]"
    assert comparing.compare("a", "b", screen, out=str(folder)) == 0
    *_, line = screen.file.getvalue().splitlines()
    assert shlex.split(line) == ["page:", str(folder / comparing.PAGE)]
