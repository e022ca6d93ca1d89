"""How many trials a study may have, told before any of them is made. Torch is not imported here."""

from collections.abc import Sized
from typing import Any

from harness.errors import UserError

MOST_TRIALS = 100_000  # to list so many takes some ten seconds at each start, and a tenth of a GiB


def number_of(seeds: Any) -> int:
    """Return how many seeds there are, also in a range that is longer than `len` can tell; 0 of what is no collection.

    >>> number_of(range(0, 10**30, 2)), number_of((3, 5))
    (500000000000000000000000000000, 2)
    """
    if isinstance(seeds, range):
        return max(0, -((seeds.start - seeds.stop) // seeds.step))
    return len(seeds) if isinstance(seeds, Sized) else 0


def in_digits(number: int) -> str:
    """Return a number with commas; one of thousands of digits, which nobody reads and Python does not write, in other words.

    >>> in_digits(100_000), in_digits(10**5000)
    ('100,000', 'more than 10**18')
    """
    return f"{number:,}" if number < 10**18 else "more than 10**18"


def check_number(budget: str, trials: int, of: str) -> None:
    """Raise an error if a budget has more trials than a study may have; `of` says in words what makes them so many."""
    if trials > MOST_TRIALS:
        raise UserError(
            f"budget {budget!r}: {of} are {in_digits(trials)} trials, and a study may have {MOST_TRIALS:,}\n"
            "give it fewer, or cut the question into several studies"
        )
