"""How long a start should take, as it is told before anything is read."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness import study
from harness.runner.board import Board
from harness.runner.estimate import LATE, Part
from harness.runner.outlook import READ_S, after_search, first_start, pictured
from harness.study import LoadedStudy


def told(loaded: LoadedStudy, budget: str = "default", workers: int = 2, *, read: bool = False) -> float:
    """The seconds that are told; 0 if none are."""
    part = first_start(loaded, budget, workers, read=read, begun=False)
    return part.seconds + part.further if part else 0.0


@pytest.mark.parametrize("name", ["loss_ablation", "learning_rate_search"])
def test_a_first_start_takes_as_long_as_there_is_to_do(name: str, home: Path) -> None:
    loaded = study.load(name)
    whole, smoke, alone = told(loaded), told(loaded, "smoke"), told(loaded, workers=1)
    assert 0 < smoke < whole < alone < 2 * whole
    assert whole - told(loaded, read=True) == pytest.approx(READ_S)


def test_nothing_is_told_of_a_study_that_was_begun_or_without_a_stated_rate(home: Path) -> None:
    assert told(study.load("colour")) == 0
    loaded = study.load("loss_ablation")
    (home / "mlruns" / "locks").mkdir(parents=True)
    (home / "mlruns" / "locks" / "loss_ablation.smoke.lock").touch()
    assert told(loaded, "smoke") == 0
    assert told(loaded) > 0


def test_all_figures_are_drawn_of_the_first_seed_of_each_arm() -> None:
    ablation = study.load("loss_ablation").study.judged("default", {})
    cells = ablation.cells("default")
    chosen = [cell for cell in cells if cell.spec.id in pictured(cells)]
    assert [cell.arm for cell in chosen] == list(ablation.arms)
    assert {cell.seed for cell in chosen} == {cells[0].seed}


def test_a_search_is_followed_by_the_test_of_its_best() -> None:
    search = study.load("learning_rate_search").study.search
    assert search is not None
    (tests,) = after_search(search, "default").stages
    assert len(tests) == search.most_arms * len(search.budgets["default"].refit_seeds)


def test_a_part_that_takes_longer_than_it_should_is_never_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    part = Part(10.0, 30.0, since=now)
    assert part.left() == 40.0
    now += 4.0
    assert part.left() == 36.0
    now += 100.0
    assert part.left() == 30.0 + LATE * 10.0


def test_the_time_left_is_shown_beside_what_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    board = Board(Console(file=io.StringIO(), width=80))
    board.now("reading mnist")
    (line,) = board.drawn_lines()
    assert line.plain.endswith(" reading mnist 0 s")
    board.expect(Part(9.0, 60.0, since=now).left)
    now += 3.0
    (line,) = board.drawn_lines()
    assert line.plain.endswith(" reading mnist 3 s | about 1 min 06 s left")
    board.show(lambda width, height: [], lambda: "")
    board.hide()
    board.now("saving checkpoints")
    (line,) = board.drawn_lines()
    assert line.plain.endswith(" saving checkpoints 0 s")
