"""`harness study|report|doctor|list|data|ui`: the command line. The Makefile's targets are one-liners over it."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console

from harness import study
from harness.errors import HarnessError, UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\n{self.format_usage().strip()}")


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = _Parser(prog="harness", description="Variational autoencoders compared with numbers one can trust.")
    commands = top.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="COMMAND")
    run = commands.add_parser("study", help="run what is missing of a study, then report")
    again = commands.add_parser("report", help="show and rewrite the report of a study from what is on record")
    ill = commands.add_parser("doctor", help="say what is wrong with finished runs; exit code 1 if something is")
    for p in (run, again, ill):
        p.add_argument("name", nargs="?", default="", help="a file of studies/, without .py")
    for p in (run, again):
        p.add_argument("--budget", default="default", help="smoke, default, full, or another that the study defines")
    ill.add_argument("--budget", help="default unless said; without a study, all that have runs")
    run.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:N")
    run.add_argument("--workers", type=int, help="worker processes on a CPU; all cores unless said")
    commands.add_parser("list", help="all studies with their questions")
    fetch = commands.add_parser("data", help="fetch and check a data set")
    fetch.add_argument("dataset", nargs="?", default="mnist")
    ui = commands.add_parser("ui", help="browse all runs in MLflow, on this machine only")
    ui.add_argument("--port", type=int, default=5000)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 2 for a user's slip, 3 for data, 4 for the machine, 130 and 143 when stopped."""
    console = Console()
    try:
        chosen = parser().parse_args(arguments)
        return _run(chosen, console)
    except HarnessError as fault:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"harness: {fault}")
        return fault.exit_code
    except KeyboardInterrupt:
        return 130


def _run(chosen: argparse.Namespace, console: Console) -> int:
    # Each branch imports what it needs: torch and MLflow take seconds, and a slip in a name should not.
    match chosen.command:
        case "study" | "report":
            if not chosen.name:
                raise UserError(f"which study? make {chosen.command} NAME=...\n{study.questions()}")
            study.cells_of(chosen.name, chosen.budget)
            from harness import run

            if chosen.command == "report":
                return run.report_study(chosen.name, chosen.budget, console)
            return run.run_study(chosen.name, chosen.budget, chosen.device, chosen.workers, console)
        case "doctor":
            if chosen.name:
                study.cells_of(chosen.name, chosen.budget or "default")
            from harness import doctor

            return doctor.examine(chosen.name, chosen.budget, console)
        case "list":
            console.print(study.questions(), soft_wrap=True, highlight=False)
        case "data":
            from harness import data

            found = data.load(chosen.dataset, say=console.print)
            counts = ", ".join(f"{s.name} {len(s):,}" for s in (found.train, found.validation, found.test))
            console.print(
                f"{found.name}: {counts} images of {found.side}x{found.side}; digest {found.digest[:12]}",
                highlight=False,
            )
        case "ui":
            from harness import ui

            ui.serve(chosen.port, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
