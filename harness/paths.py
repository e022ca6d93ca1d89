"""Paths of everything that a run reads or writes, all below one home folder."""

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PROJECT = PACKAGE.parent  # the clone; the folder of all packages if the harness is installed

_STUDY_FOLDER: ContextVar[Path | None] = ContextVar("study_folder", default=None)


@cache
def in_clone() -> bool:
    """Return whether this package lies in a clone of its repository, and not among installed packages."""
    project = PROJECT / "pyproject.toml"
    return project.is_file() and bool(re.search(r'^name = "vae-harness"$', project.read_text(encoding="utf-8"), re.M))


def working_in_clone() -> bool:
    """Return whether the working folder is the clone that this package lies in, or within it."""
    return in_clone() and Path.cwd().is_relative_to(PROJECT)


def home() -> Path:
    """Return `$HARNESS_HOME`, or the clone's folder within the clone, or else the working folder; as an absolute path."""
    chosen = os.environ.get("HARNESS_HOME")
    if chosen:
        return Path(os.path.expanduser(chosen)).resolve()
    return PROJECT if working_in_clone() else Path.cwd()


def mlruns() -> Path:
    """Return the folder for everything that runs write: both databases, artifacts and locks."""
    return home() / "mlruns"


def data() -> Path:
    """Return the folder of the raw data sets: `$HARNESS_DATA`, or `data/` in the home folder."""
    chosen = os.environ.get("HARNESS_DATA")
    return Path(os.path.expanduser(chosen)).resolve() if chosen else home() / "data"


def packaged(file: str) -> Path:
    """Return the path of a file of an installed package, which stands first in its name; the package is not imported.

    Without that package it is the name itself, which is that of no file.
    """
    package, _, inner = file.partition("/")
    found = find_spec(package)
    return Path(found.origin).parent / inner if found and found.origin else Path(file)


def studies() -> Path:
    """Return the folder of the shipped study files, which hold one question each."""
    return (PROJECT if in_clone() else PACKAGE) / "studies"


def study_folder() -> Path | None:
    """Return the folder of the study file that is being loaded, which references in it are relative to; None if none is."""
    return _STUDY_FOLDER.get()


@contextmanager
def loading_from(folder: Path) -> Iterator[None]:
    """Note in this block that a study file of this folder is being loaded."""
    token = _STUDY_FOLDER.set(folder)
    try:
        yield
    finally:
        _STUDY_FOLDER.reset(token)


def command(verb: str, **options: object) -> str:
    """Return how a command is typed in the working folder: by make within the clone, by the harness's own name elsewhere.

    Options that are empty are left out. `name` and `dataset` are what a command is about, which the harness takes without a flag.
    """
    given = {option: shlex.quote(str(value)) for option, value in options.items() if value}
    if working_in_clone():
        return " ".join(["make", verb, *(f"{option.upper()}={value}" for option, value in given.items())])
    return " ".join(["harness", verb, *(v if o in ("name", "dataset") else f"--{o} {v}" for o, v in given.items())])


def option(name: str, value: str) -> str:
    """Return how an option with a value is typed in the working folder."""
    quoted = shlex.quote(value)
    return f"{name.upper()}={quoted}" if working_in_clone() else f"--{name} {quoted}"


def flag(name: str) -> str:
    """Return how an option without a value is typed in the working folder."""
    return f"{name.upper()}=1" if working_in_clone() else f"--{name}"
