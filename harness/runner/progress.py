"""How a running study looks: live bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

PLAIN_EVERY_S = 15.0


def clock(seconds: float) -> str:
    """A duration to read.

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
    """Trials done, the newest ELBO, images/s over all workers, and the time left, from epochs done so far."""

    def __init__(self, console: Console, trials: int, done: int, epochs: int, places: int) -> None:
        self.console, self.trials, self.done, self.epochs_left = console, trials, done, epochs
        self.started = self.said = time.monotonic()
        self.epochs_done = 0
        self.places = places
        self.speeds: dict[str, float] = {}
        self.newest = ""
        self.progress: Progress | None = None
        self.task = TaskID(0)
        if console.is_terminal:
            count = TextColumn("{task.completed:.0f}/{task.total:.0f} trials", table_column=Column(no_wrap=True, min_width=13))
            words = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
            self.progress = Progress(BarColumn(16), count, words, console=console, transient=True, expand=True)
            self.task = self.progress.add_task("starting workers", total=trials, completed=done)
            self.progress.start()

    def epoch(self, name: str, epoch: int, epochs: int, row: Mapping[str, float]) -> None:
        """A trial finished an epoch."""
        self.epochs_done += 1
        self.epochs_left -= 1
        self.speeds[name] = row["perf/images_per_s"]
        split = "validation" if "elbo/validation" in row else "train"
        self.newest = f"ELBO {row[f'elbo/{split}']:.1f} ({name}, epoch {epoch}/{epochs}, {split})"
        if self.progress:
            self.progress.update(self.task, description=f"{self._left()} | {self._speed()} | {self.newest}")
        elif time.monotonic() - self.said > PLAIN_EVERY_S:
            self.say(f"{self._left()} | {self._speed()} | {self.newest}")

    def trial(self, name: str, outcome: str, epochs_unspent: int = 0, *, over: int = 1) -> None:
        """A trial ended; `over` is 0 where it will be tried again, and more than 1 where it ends others with it."""
        self.speeds.pop(name, None)
        self.epochs_left -= epochs_unspent
        self.done += over
        if self.progress:
            self.progress.update(self.task, completed=self.done)
        self.say(f"[{self.done}/{self.trials}] {name}: {outcome} | {self._left()}")

    def say(self, line: str) -> None:
        """A line that stays."""
        self.said = time.monotonic()
        self.console.print(Text(line), highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bars away."""
        if self.progress:
            self.progress.stop()

    def _speed(self) -> str:
        return f"{sum(list(self.speeds.values())[-self.places :]):,.0f} images/s"

    def _left(self) -> str:
        if not self.epochs_done or self.epochs_left <= 0:
            return "finishing" if self.epochs_done else "time left not known yet"
        return f"{clock((time.monotonic() - self.started) / self.epochs_done * self.epochs_left)} left"
