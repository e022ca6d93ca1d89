"""The display of a running study: live bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from harness.scores.rows import ELBO_TRAIN, ELBO_VALIDATION, IMAGES_PER_S

PLAIN_EVERY_S = 15.0


def clock(seconds: float) -> str:
    """Return a duration in words.

    >>> clock(41), clock(754), clock(8000)
    ('41 s', '12 min 34 s', '2 h 13 min')
    """
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60:02d} s"
    return f"{s // 3600} h {s % 3600 // 60:02d} min"


class Display:
    """The progress of a study: trials done, the newest ELBO, images/s of all workers, and the time left.

    The time left is estimated from the epochs done so far.

    Args:
        console: where it is shown.
        trials: their number.
        done: how many are done already.
        epochs: how many are left.
        workers: how many trials train at a time.
    """

    def __init__(self, console: Console, trials: int, done: int, epochs: int, workers: int) -> None:
        self.console, self.trials, self.done, self.epochs_left = console, trials, done, epochs
        self.started = self.printed_at = time.monotonic()
        self.epochs_done = 0
        self.workers = workers
        self.speeds: dict[str, float] = {}
        self.newest = ""
        self.progress: Progress | None = None
        self.task = TaskID(0)
        if console.is_terminal:
            count = TextColumn("{task.completed:.0f}/{task.total:.0f} trials", table_column=Column(no_wrap=True, min_width=13))
            description = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
            self.progress = Progress(BarColumn(16), count, description, console=console, transient=True, expand=True)
            self.task = self.progress.add_task("starting workers", total=trials, completed=done)
            self.progress.start()

    def epoch(self, name: str, epoch: int, epochs: int, row: Mapping[str, float]) -> None:
        """Show that a trial has finished an epoch, with its metrics `row`."""
        self.epochs_done += 1
        self.epochs_left -= 1
        self.speeds[name] = row[IMAGES_PER_S.key]
        elbo = ELBO_VALIDATION if ELBO_VALIDATION.key in row else ELBO_TRAIN
        self.newest = f"ELBO {row[elbo.key]:.1f} ({name}, epoch {epoch}/{epochs}, {elbo.images})"
        if self.progress:
            self.progress.update(self.task, description=f"{self._left()} | {self._speed()} | {self.newest}")
        elif time.monotonic() - self.printed_at > PLAIN_EVERY_S:
            self.say(f"{self._left()} | {self._speed()} | {self.newest}")

    def trial(self, name: str, outcome: str, epochs_unspent: int = 0, *, over: int = 1) -> None:
        """Show that a trial has ended.

        Args:
            name: of the trial.
            outcome: in words.
            epochs_unspent: the epochs that are no longer needed; negative for those that are needed again.
            over: how many trials have ended: 0 if the trial will be tried again, more than 1 if it ends others with it.
        """
        self.speeds.pop(name, None)
        self.epochs_left -= epochs_unspent
        self.done += over
        if self.progress:
            self.progress.update(self.task, completed=self.done)
        self.say(f"[{self.done}/{self.trials}] {name}: {outcome} | {self._left()}")

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.printed_at = time.monotonic()
        self.console.print(Text(line), highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the bars."""
        if self.progress:
            self.progress.stop()

    def _speed(self) -> str:
        """Return the images/s of the trials in training, in words."""
        return f"{sum(list(self.speeds.values())[-self.workers :]):,.0f} images/s"

    def _left(self) -> str:
        """Return the time left, in words."""
        if not self.epochs_done or self.epochs_left <= 0:
            return "finishing" if self.epochs_done else "time left not known yet"
        return f"{clock((time.monotonic() - self.started) / self.epochs_done * self.epochs_left)} left"
