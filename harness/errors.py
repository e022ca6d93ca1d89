"""Errors that a user can mend, in a study or a command, in the data or on the machine. Each has an exit code and no traceback."""

import builtins
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")
LINES = 6  # of a message, at most
WIDEST = 200  # characters of a value in a message: longer ones are cut in their middle
MOST_NAMES = 2_000  # characters of the names that a message lists
LIKENESS = 0.7  # of a name to one among the hundreds of a module, from which on it is taken for a slip


class HarnessError(Exception):
    """An error that a user can mend. Its message names the thing, shows the value that came and says what would do."""

    exit_code = 1


class UserError(HarnessError, ValueError):
    """A wrong name, value or combination in a study, a spec or on the command line."""

    exit_code = 2


class DataError(HarnessError):
    """A data set that is missing or whose contents are not as expected."""

    exit_code = 3


class MachineError(HarnessError):
    """A resource that the machine lacks or that something else holds: a device, a port, a lock, a tracking server."""

    exit_code = 4


def shown(value: object) -> str:
    """Return a value as a message shows it: as Python writes it, cut in its middle if that is long; its type if it has no words.

    >>> shown("relu"), shown(10**5000), len(shown("x" * 7000)) < 300
    ("'relu'", 'a value of type int that cannot be written', True)
    """
    try:
        text = repr(value)
    except Exception:  # an object's own code, a number of too many digits, a list within a list within ...
        return f"a value of type {type(value).__name__} that cannot be written"
    return cut(text)


def counted(number: int, noun: str) -> str:
    """Return a number with what is counted, in the plural unless it is one.

    >>> counted(1, "trial"), counted(0, "trial"), counted(1200, "epoch")
    ('1 trial', '0 trials', '1,200 epochs')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def cut(text: str) -> str:
    """Return a text as a message shows it: on one line, cut in its middle if it is long."""
    plain = text if text.isprintable() else repr(text)[1:-1]
    return plain if len(plain) <= WIDEST else f"{plain[: WIDEST - 50]} ... {plain[-30:]} ({len(plain):,} characters)"


def unknown(what: str, name: object, known: Iterable[str]) -> UserError:
    """Return the error for a name that no table holds.

    Its message gives the kind of name, the name itself, the nearest known name and all known names.

    Args:
        what: the kind of name, such as "activation".
        name: the name that came.
        known: all names that would do.

    >>> print(unknown("activation", "rleu", ["elu", "relu"]))
    unknown activation 'rleu'; did you mean 'relu'?
    known: elu, relu
    """
    names = list(known)
    listed = ", ".join(names)
    if len(listed) > MOST_NAMES:
        listed = f"{listed[:MOST_NAMES]} ... ({len(names):,} names)"
    return UserError(f"unknown {what} {shown(name)}{nearest(name, names)}\nknown: {listed}")


def nearest(name: object, known: Iterable[str], likeness: float = 0.5) -> str:
    """Return what to say of the known name that is nearest to one that came; an empty text if none is near.

    >>> nearest("studdy", ["study", "report"])
    "; did you mean 'study'?"
    """
    found = get_close_matches(name[:WIDEST], list(known), n=1, cutoff=likeness) if isinstance(name, str) else []
    return f"; did you mean {shown(found[0])}?" if found else ""


def raised(fault: BaseException) -> str:
    """Return what a user's own code raised, in words; where Python looked for a name in vain, with what would do.

    >>> raised(KeyError("no"))
    "KeyError: 'no'"
    """
    words, remedy = "it has no words", ""
    with suppress(Exception):  # of its own too
        words = str(fault)
        remedy = "" if "did you mean" in words.lower() else _remedy(fault, words)
    return f"{type(fault).__name__}: {words}{remedy}"


def _remedy(fault: BaseException, words: str) -> str:
    """Return what would do where a module or a name was not found; empty if it is none of that, or nothing is known."""
    match fault:
        case ModuleNotFoundError(name=str(name)):
            package, _, last = name.rpartition(".")
            if package:
                return nearest(last, (m.name for m in pkgutil.iter_modules(getattr(sys.modules.get(package), "__path__", ()))))
            near = nearest(name, {module.partition(".")[0] for module in list(sys.modules)}, LIKENESS)
            return near or f"\ninstall the package that has it: {sys.executable} -m pip install ..."
        case ImportError(name=str(module)) if wanted := re.match(r"cannot import name '(\w+)'", words):
            return nearest(wanted[1], dir(sys.modules.get(module)), LIKENESS)
        case AttributeError(name=str(name), obj=thing):
            return nearest(name, dir(thing), LIKENESS)
        case NameError(name=str(name)):
            ours = sys.modules["harness"].__all__
            if name in ours:
                return f"; from harness import {name}"
            frames = [frame for frame, _ in traceback.walk_tb(fault.__traceback__)]
            seen = {**vars(builtins), **frames[-1].f_globals, **frames[-1].f_locals} if frames else {}
            return nearest(name, {*seen, *ours}, LIKENESS)
    return ""


def look_up(table: Mapping[str, T], name: str, what: str) -> T:
    """Return `table[name]`.

    Raises:
        UserError: the table has no such name; the message gives the nearest one and lists them all. `what` is the kind of name.
    """
    if name not in table:
        raise unknown(what, name, table)
    return table[name]


class Faults:
    """Errors that are gathered, so that a user is told of all of them at once.

    Attributes:
        found: the messages.
    """

    def __init__(self, found: Iterable[str] = ()) -> None:
        self.found = list(found)

    @contextmanager
    def noted(self, prefix: str = "") -> Iterator[None]:
        """Keep the message of a `UserError` that the block raises, with a prefix, and go on behind the block."""
        try:
            yield
        except UserError as fault:
            self.found.append(f"{prefix}{fault}")

    def check(self) -> None:
        """Raise an error if there are any.

        Raises:
            UserError: there are; the message lists them.
        """
        if self.found:
            raise UserError(listed(self.found))


def listed(faults: Iterable[str]) -> str:
    r"""Return several messages as one of at most `LINES` lines: what is known is left out first, then what comes last.

    >>> print(listed(f"fault {i}\nknown: {i}" for i in range(9)))
    fault 0
    fault 1
    fault 2
    fault 3
    fault 4
    and 4 more
    """
    lines = [line for fault in faults for line in fault.splitlines()]
    if len(lines) > LINES:
        lines = [line for line in lines if not line.startswith("known: ")]
    return "\n".join(lines if len(lines) <= LINES else [*lines[: LINES - 1], f"and {len(lines) - LINES + 1} more"])
