"""The foot of the terminal while a command works: what goes on, and for how long. Where there is no terminal, a line now and then.

A terminal's foot is drawn anew several times a second, never wider or higher than the terminal, and goes when the work is over. A
pipe gets plain lines: whenever nothing else was printed for `PLAIN_EVERY_S`, what goes on.
"""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

PLAIN_EVERY_S = 4.0  # with a look more, at most 5 s
TICK_S = 1.0  # between two looks at whether a line is due
PER_S = 4  # drawings of a terminal's foot
WHEEL = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ASCII_WHEEL = "|/-\\"


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


def about(seconds: float) -> str:
    """Return in words how long something will take, of which not much is known.

    >>> about(0.2), about(41)
    ('about 1 s', 'about 41 s')
    """
    return f"about {clock(max(1.0, seconds))}"


def is_ascii(console: Console) -> bool:
    """Return whether a console's stream takes no characters beyond ASCII."""
    return not console.encoding.lower().startswith("utf")


def is_live(console: Console) -> bool:
    """Return whether a console is a terminal on which lines can be drawn anew, whatever the environment says of colours."""
    return console.is_interactive and not console.quiet and not console.is_dumb_terminal and console.file.isatty()


class Board:
    """What goes on, shown at the foot of a console while the board is entered, and lines above it that stay.

    Attributes:
        console: the console.
        doing: what goes on, in words.
        since: when that began, in seconds of the monotonic clock.
        left: returns the seconds until all is done; None if nothing tells.
        rows: returns the lines to draw instead, given the columns and lines that there are for them; None for `doing` alone.
        plain: returns a line to print instead where there is no terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.doing, self.since, self.printed_at = "", time.monotonic(), time.monotonic()
        self.left: Callable[[], float] | None = None
        self.rows: Callable[[int, int], Sequence[Text]] | None = None
        self.plain: Callable[[], str] | None = None
        self.live: Live | None = None
        self.over = threading.Event()
        self.ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        if is_live(self.console):
            self.live = Live(console=self.console, get_renderable=self._drawn, refresh_per_second=PER_S, transient=True)
            self.live.start()
        else:
            self.ticker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Clear the foot; nothing is drawn or printed any more but what is said. A second call does nothing."""
        self.over.set()
        live, self.live = self.live, None
        if live is not None:
            live.stop()

    def now(self, words: str) -> None:
        """Show from now on that this goes on."""
        self.doing, self.since = words, time.monotonic()

    def expect(self, left: Callable[[], float]) -> None:
        """Show from now on these seconds as the time left, until lines of one's own are shown."""
        self.left = left

    def show(self, rows: Callable[[int, int], Sequence[Text]], plain: Callable[[], str]) -> None:
        """Draw these lines from now on, and where there is no terminal print this one, until `hide`."""
        self.rows, self.plain, self.left = rows, plain, None

    def hide(self) -> None:
        """Show what goes on again, in place of lines of one's own."""
        self.rows = self.plain = None

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.printed_at = time.monotonic()
        self.console.print(Text(line), highlight=False, soft_wrap=self.live is None)  # a pipe has no width

    def _drawn(self) -> RenderableType:
        """Return the foot."""
        return Group(*self.drawn_lines())

    def drawn_lines(self) -> Sequence[Text]:
        """Return the lines of the foot, none wider than the console."""
        width, height = self.console.size.width, self.console.size.height
        lines = self.rows(width, height) if self.rows else [self._line()] if self.doing else []
        for line in lines:
            line.no_wrap, line.overflow = True, "crop"
            line.truncate(width, overflow="crop")
        return lines

    def _line(self) -> Text:
        """Return what goes on and for how long, with a wheel that turns."""
        wheel = ASCII_WHEEL if is_ascii(self.console) else WHEEL
        turn = int((time.monotonic() - self.since) * PER_S) % len(wheel)
        return Text.assemble((wheel[turn], "cyan"), f" {self.doing} ", (self._times(), "dim"))

    def _times(self) -> str:
        """Return for how long it goes on, and how much time is left if that is known."""
        left = f" | {about(self.left())} left" if self.left else ""
        return f"{clock(time.monotonic() - self.since)}{left}"

    def _tick(self) -> None:
        """Print what goes on whenever nothing was printed for a while."""
        while not self.over.wait(TICK_S):
            if time.monotonic() - self.printed_at >= PLAIN_EVERY_S:
                words = self.plain() if self.plain else f"{self.doing}: {self._times()}" if self.doing else ""
                if words:
                    self.say(words)
