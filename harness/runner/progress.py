"""Trials in training: a bar, and a line for each with the course of its ELBO; plain lines where there is no terminal."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from harness.runner.board import Board, about, clock, is_ascii
from harness.runner.estimate import Estimate
from harness.scores.rows import ELBO_TRAIN, ELBO_VALIDATION, IMAGES_PER_S

BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
FULL, EMPTY, ASCII_FULL, ASCII_EMPTY = "━", "─", "#", "-"
MOST_LINES = 8  # of trials in training
LONGEST = 16  # columns of a course, and of a bar
SHARE = 50.0  # times that the estimate takes, between two of them
STARTING, TRAINING, EVALUATING = "starting", "training", "evaluating"


def sparkline(values: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """Return the course of values as blocks, from the lowest for the smallest to the highest for the largest.

    Of more values than columns, the last of each column's share is shown.

    >>> sparkline([1.0, 2.0, 3.0, 8.0], 8), sparkline([5.0], 8), sparkline(range(100), 4)
    ('▁▂▃█', '▁', '▁▃▆█')
    """
    count = min(width, len(values))
    chosen = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    low, high = min(chosen, default=0.0), max(chosen, default=0.0)
    return "".join(blocks[round((v - low) / (high - low) * (len(blocks) - 1)) if high > low else 0] for v in chosen)


@dataclass
class Line:
    """A trial in training.

    Attributes:
        epochs: that it trains.
        epoch: the newest.
        since: when that ended, or the trial began, in seconds of the monotonic clock.
        elbo: the ELBO of its epochs.
        of: the images that the ELBO is of.
        speed: the images/s of its program.
    """

    epochs: int
    epoch: int
    since: float
    elbo: list[float] = field(default_factory=list)
    of: str = ""
    speed: float = 0.0

    @property
    def state(self) -> str:
        """What is done of it."""
        return EVALUATING if self.epoch >= self.epochs else TRAINING if self.elbo else STARTING


class Display:
    """The progress of a study: trials done, those in training, images/s of all workers, and the time left.

    Args:
        board: where it is shown.
        trials: their number.
        done: how many are done already.
        workers: how many jobs train at a time.
        estimate: of the time left, which whoever reports to this display tells what happens.
    """

    def __init__(self, board: Board, trials: int, done: int, workers: int, estimate: Estimate) -> None:
        self.board, self.trials, self.done, self.workers, self.estimate = board, trials, done, workers, estimate
        self.lines: dict[str, Line] = {}  # by the name of the trial
        self.newest = ""
        self.ends: float | None = None  # when all is done, as estimated last
        self.estimated_at = self.took_s = 0.0
        board.show(self._rows, self._plain)

    def began(self, name: str, epochs: int, start: int) -> None:
        """Show that a trial trains from now on, after `start` epochs that it has already."""
        self.lines = {**self.lines, name: Line(epochs, start, time.monotonic())}  # another thread draws them

    def epoch(self, name: str, epoch: int, epochs: int, row: Mapping[str, float]) -> None:
        """Show that a trial has finished an epoch, with its metrics `row`."""
        elbo = ELBO_VALIDATION if ELBO_VALIDATION.key in row else ELBO_TRAIN
        line = self.lines.get(name) or Line(epochs, 0, 0.0)
        line.epoch, line.since, line.of, line.speed = epoch, time.monotonic(), elbo.images, row[IMAGES_PER_S.key]
        line.elbo = [*line.elbo, row[elbo.key]]
        self.newest = f"ELBO {row[elbo.key]:.1f} ({name}, epoch {epoch}/{epochs}, {elbo.images})"

    def trial(self, name: str, outcome: str, *, over: int = 1) -> None:
        """Show that a trial has ended.

        Args:
            name: of the trial.
            outcome: in words.
            over: how many trials have ended: 0 if the trial will be tried again, more than 1 if it ends others with it.
        """
        self.lines = {n: line for n, line in self.lines.items() if n != name}
        self.done += over
        self.board.say(f"[{self.done}/{self.trials}] {name}: {outcome} | {self._left()}")

    def close(self) -> None:
        """Remove the lines."""
        self.board.hide()

    # ------------------------------------------------------------------ drawn by another thread

    def _left(self) -> str:
        """Return the time left, in words; estimated anew, unless that would take much of the time."""
        now = time.monotonic()
        if now - self.estimated_at >= SHARE * self.took_s:
            left = self.estimate.left()
            self.ends = None if left is None else now + left
            self.estimated_at = time.monotonic()
            self.took_s = self.estimated_at - now
        if self.ends is None:
            return "time left not known yet"
        left = max(1.0, self.ends - now)
        return f"{clock(left) if self.estimate.costs.seen else about(left)} left"

    def _speed(self) -> str:
        """Return the images/s of the trials in training, in words."""
        programs = [line.speed for line in self.lines.values() if line.state == TRAINING][-self.workers :]
        return f"{sum(programs):,.0f} images/s" if programs else ""

    def _plain(self) -> str:
        """Return what goes on in a line."""
        return " | ".join(filter(None, (self._left(), self._speed(), self.newest or STARTING)))

    def _rows(self, width: int, height: int) -> list[Text]:
        """Return the bar, and a line for each of some trials in training."""
        ascii_only = is_ascii(self.board.console)
        full, empty = (ASCII_FULL, ASCII_EMPTY) if ascii_only else (FULL, EMPTY)
        bar = max(4, min(LONGEST, width // 5))
        filled = bar * self.done // max(1, self.trials)
        words = " | ".join(filter(None, (f"{self.done}/{self.trials} trials", self._left(), self._speed())))
        head = Text.assemble((full * filled, "green"), (empty * (bar - filled), "dim"), f" {words}")
        lines = sorted(self.lines.items(), key=lambda item: item[1].state == STARTING)
        most = max(1, min(MOST_LINES, height - 4))
        shown = lines if len(lines) <= most else lines[: most - 1]
        names = max((len(name) for name, _ in shown), default=0)
        rows = [self._row(name, line, min(names, max(12, width // 3)), width, ascii_only) for name, line in shown]
        if hidden := len(lines) - len(shown):
            rows.append(Text(f"  and {hidden} more in training", "dim"))
        return [head, *rows]

    @staticmethod
    def _row(name: str, line: Line, names: int, width: int, ascii_only: bool) -> Text:
        """Return the line of a trial: name, epochs, the course of its ELBO, the newest."""
        short = name if len(name) <= names else f"{name[: names - 2]}.."
        digits = len(str(line.epochs))
        row = Text.assemble("  ", (f"{short:<{names}}", "bold"), f" {line.epoch:>{digits}}/{line.epochs} ")
        columns = max(4, min(LONGEST, width - names - 2 * digits - 34))
        spark = sparkline(line.elbo, columns, ASCII_BLOCKS if ascii_only else BLOCKS)
        row.append(f"{spark:<{min(columns, line.epochs)}} ", "cyan")
        if line.elbo:
            row.append(f"ELBO {line.elbo[-1]:.1f} {line.of} ")
        if line.state != TRAINING:
            row.append(f"{line.state} {clock(time.monotonic() - line.since)}", "dim")
        return row
