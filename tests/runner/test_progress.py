"""What people see of a study in training: lines that fit a terminal, plain lines elsewhere."""

import io
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from harness.runner import board as boards
from harness.runner.board import Board, is_live
from harness.runner.costs import Before, Costs, Work
from harness.runner.estimate import Estimate
from harness.runner.progress import ASCII_BLOCKS, BLOCKS, Display, sparkline
from harness.scores.rows import ELBO_VALIDATION, IMAGES_PER_S


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def encoding(self) -> str:
        return "utf-8"


def display_on(board: Board, trials: int = 100) -> Display:
    return Display(board, trials, 0, 2, Estimate([Work("bce", 6, "quick")] * trials, workers=2))


def trained(display: Display, name: str, epochs: int = 3) -> None:
    display.began(name, 6, 0)
    for epoch in range(1, epochs + 1):
        display.epoch(name, epoch, 6, {ELBO_VALIDATION.key: -200.0 + 10 * epoch, IMAGES_PER_S.key: 20_000.0})


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("trials", [2, 16, 64])
def test_lines_fit_the_terminal_however_many_train(width: int, trials: int) -> None:
    board = Board(Console(file=Terminal(), width=width, height=24, force_terminal=True))
    display = display_on(board)
    for i in range(trials):
        trained(display, f"an_arm_with_quite_a_long_name_{i} / seed {i}")
    lines = board.drawn_lines()
    assert len(lines) <= 10
    assert all(line.cell_len <= width for line in lines)
    assert lines[0].plain.startswith("─")
    assert ("more in training" in lines[-1].plain) == (trials > 8)
    assert "▁▅█" in lines[1].plain
    if width >= 60:
        assert "3/6" in lines[1].plain


def test_a_low_terminal_gets_fewer_lines() -> None:
    board = Board(Console(file=Terminal(), width=80, height=7, force_terminal=True))
    display = display_on(board)
    for i in range(9):
        trained(display, f"arm / seed {i}")
    assert len(board.drawn_lines()) <= 4


def test_without_unicode_all_is_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    board = Board(Console(file=stream, width=80, force_terminal=True))
    board.now("reading mnist")
    assert all(line.plain.isascii() for line in board.drawn_lines())
    trained(display_on(board), "bce / seed 0")
    lines = [line.plain for line in board.drawn_lines()]
    assert all(map(str.isascii, lines))
    assert ASCII_BLOCKS[0] + ASCII_BLOCKS[4] + ASCII_BLOCKS[-1] in lines[1]


def test_a_sparkline_has_the_ends_of_what_it_shows() -> None:
    assert sparkline([], 5) == ""
    assert sparkline([-3.0, -2.0], 5) == BLOCKS[0] + BLOCKS[-1]
    assert len(sparkline(range(1000), 16)) == 16


def test_a_foot_is_drawn_while_the_board_is_entered_and_gone_then() -> None:
    file = Terminal()
    console = Console(file=file, width=80, force_terminal=True)
    with Board(console) as board:
        board.now("loading torch")
        until(lambda: "loading torch" in file.getvalue())
        board.say("a line that stays")
    assert file.getvalue().rstrip("\x1b[?25h").rstrip().endswith("\x1b[2K")
    assert "a line that stays" in file.getvalue()


@pytest.mark.parametrize("variable", [None, "FORCE_COLOR"])
def test_a_pipe_gets_plain_lines_now_and_then(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(boards, "PLAIN_EVERY_S", 0.0)
    monkeypatch.setattr(boards, "TICK_S", 0.01)
    said = io.StringIO()
    console = Console(file=said, width=80)
    assert not is_live(console)
    with Board(console) as board:
        board.now("loading torch")
        until(lambda: "loading torch: 0 s\n" in said.getvalue())
        display = display_on(board, 3)
        until(lambda: "time left not known yet | starting\n" in said.getvalue())
        trained(display, "bce / seed 0")
        until(lambda: "40,000 images/s" in said.getvalue() or "20,000 images/s | ELBO -170.0 (bce" in said.getvalue())
        display.trial("bce / seed 0", "done")
        display.close()
    assert "\x1b" not in said.getvalue()
    assert "[1/3] bce / seed 0: done | " in said.getvalue()


def test_the_time_left_goes_on_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while a trial is evaluated for longer than was expected: what is left of it does not run out."""
    board = Board(Console(file=io.StringIO(), width=80))
    display = display_on(board, 1)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(display.estimate, "now", lambda: now)
    display.estimate.submitted({"a": Work("bce", 1, "quick")})
    now += 2.0
    display.estimate.epoch("a", 1, 1.0)
    first = said(display)
    now += 600.0
    assert 5 < said(display) < first


def said(display: Display) -> float:
    """The seconds that are left, as they are shown."""
    return float(display._plain().split(" s left")[0])


def test_what_trials_took_before_is_expected_of_them() -> None:
    costs = Costs(Before({"bce": 3.0, "mse": 6.0}, {"bce": 4.0}))
    display = Display(
        Board(Console(file=io.StringIO(), width=80)), 2, 0, 1, Estimate([Work("bce", 5, "quick")], workers=1, costs=costs)
    )
    assert display._plain().startswith("about ")
    assert costs.of_epoch("mse") == 6.0
    assert costs.of_epoch("another") == 4.5
    costs.epoch_s["bce"].add(1.0)  # this machine is three times as fast today
    assert costs.of_epoch("mse") == pytest.approx(2.0)
    assert costs.of_evaluation(Work("bce", 5, "quick")) == 2.0  # its pace goes for evaluations too, but not beyond 2
    assert not display._plain().startswith("about ")


def test_a_pipe_that_is_told_enough_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "TICK_S", 0.01)
    said = io.StringIO()
    with Board(Console(file=said, width=80)) as board:
        board.now("loading torch")
        time.sleep(0.05)
    assert said.getvalue() == ""


def test_a_pipe_hears_of_what_goes_on_however_often_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "PLAIN_EVERY_S", 0.2)
    monkeypatch.setattr(boards, "TICK_S", 0.01)
    said = io.StringIO()
    with Board(Console(file=said, width=80)) as board:
        deadline = time.monotonic() + 20
        while not said.getvalue():
            assert time.monotonic() < deadline
            board.now("one of many things")
            time.sleep(0.01)
    assert "one of many things: 0 s" in said.getvalue()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
