"""Options that several commands take, and what they make of a study's name."""

import argparse
from collections.abc import Callable

from harness import paths, study
from harness.errors import UserError

SETTINGS = "change a field of the base or of the budgets: latent=10, budget.epochs=3, seeds=range(3)"


def study_name(parser: argparse.ArgumentParser) -> None:
    """Add the name of a study, which may be left out to be told which there are, and the options that change it."""
    parser.add_argument("name", nargs="?", default="", help="one that `harness list` shows, ./file.py or package.module")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=SETTINGS)
    parser.add_argument("--arms", default="", help="the arms to keep, with commas between them; all unless said")


def budget(parser: argparse.ArgumentParser) -> None:
    """Add the name of a budget, which is that of the default one unless said."""
    parser.add_argument("--budget", default="default", help="smoke, default, full, or another that the study defines")


def storage(parser: argparse.ArgumentParser) -> None:
    """Add the address of the server that holds a study's trials."""
    what = "postgresql+psycopg://user@host/database, for several drivers; else a file in mlruns/"
    parser.add_argument("--storage", default="", help=what)


def as_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that makes the output one JSON document."""
    parser.add_argument("--json", action="store_true", help="one JSON document on the output, and nothing else there")


def quiet(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves out all but the verdicts, warnings and where to look."""
    parser.add_argument("--quiet", action="store_true", help="print the verdicts and where to look alone; warnings stay")


def together(*adding: Callable[[argparse.ArgumentParser], None]) -> Callable[[argparse.ArgumentParser], None]:
    """Return a function that adds several options to a parser, in this order."""

    def add(parser: argparse.ArgumentParser) -> None:
        for one in adding:
            one(parser)

    return add


def changed(options: argparse.Namespace) -> str:
    """Return the study that options name, with their changes in brackets behind it; empty if they name none.

    Raises:
        UserError: there are changes, and no name of what they change.
    """
    arms = tuple(arm.strip() for arm in options.arms.split(",") if arm.strip())
    changes = study.Overrides(tuple(options.set), arms)
    if changes and not options.name:
        raise UserError(f"{changes}: of which study?")
    return f"{options.name}{changes}"


def required(options: argparse.Namespace) -> str:
    """Return what `changed` does, of a study and budget that can run.

    Raises:
        UserError: no study is named, or there is no such study or budget.
    """
    name = changed(options)
    if not name:
        raise UserError(f"which study? {paths.command(options.command, name='...')}\n{study.questions()}")
    study.check(name, options.budget)
    return name
