"""`harness study|report|doctor|list|data|ui|bench`: the command line. The Makefile's targets are one-liners over it."""

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
    for p in (run, again):
        p.add_argument(
            "--storage", default="", help="postgresql+psycopg://user@host/database, for several drivers; else a file in mlruns/"
        )
    ill.add_argument("--budget", help="default unless said; without a study, all that have runs")
    run.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:N")
    run.add_argument("--workers", type=int, help="trainings at a time; unless said one per core, or per GPU")
    run.add_argument("--executor", default="processes", help="local, processes, ray, slurm")
    commands.add_parser("list", help="all studies with their questions")
    fetch = commands.add_parser("data", help="fetch and check a data set")
    fetch.add_argument("dataset", nargs="?", default="mnist")
    ui = commands.add_parser("ui", help="browse all runs in MLflow, on this machine only")
    ui.add_argument("--port", type=int, default=5000)
    _bench(commands.add_parser("bench", help="how fast a training step is here, and whether it became slower"))
    return top


def _bench(bench: argparse.ArgumentParser) -> None:
    kinds = bench.add_subparsers(dest="kind", required=True, parser_class=_Parser, metavar="KIND")
    ladder = kinds.add_parser("ladder", help="every way of taking the step, side by side; writes docs/performance.md")
    compare = kinds.add_parser("compare", help="the working tree against a revision: REGRESSION, OK, IMPROVEMENT or INCONCLUSIVE")
    counts = kinds.add_parser("counts", help="operations, FLOPs and bytes of a step against the file of record")
    gpu = kinds.add_parser("gpu", help="what a GPU must show: parity, no synchronisation, step times against the goals")
    kinds.add_parser("study", help="36 trials from start to report beside as many steps of the usual loop; half an hour on 2 cores")
    compare.add_argument("base", nargs="?", default="", help="a revision of this repository")
    counts.add_argument("--refresh", action="store_true", help="write today's counts into the file")
    for p in (ladder, compare, counts):
        p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    gpu.add_argument("--device", default="auto", help="the first GPU unless said; cuda:N")
    ladder.add_argument("--threads", type=int, default=1, help="of this process on a CPU; 1 unless said")
    ladder.add_argument("--rounds", type=int, default=16, help="of all rungs, one after another; 16 unless said")


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
            study.check(chosen.name, chosen.budget)
            from harness.runner import commands

            if chosen.command == "report":
                return commands.report_study(chosen.name, chosen.budget, console, storage=chosen.storage)
            how = {"executor": chosen.executor, "storage": chosen.storage}
            return commands.run_study(chosen.name, chosen.budget, chosen.device, chosen.workers, console, **how)
        case "doctor":
            if chosen.name:
                study.check(chosen.name, chosen.budget or "default")
            from harness import doctor

            return doctor.examine(chosen.name, chosen.budget, console)
        case "list":
            console.print(study.questions(), soft_wrap=True, highlight=False)
        case "data":
            from harness import data

            found = data.load_dataset(chosen.dataset, say=console.print)
            counts = ", ".join(f"{s.name} {len(s):,}" for s in (found.train, found.validation, found.test))
            console.print(
                f"{found.name}: {counts} images of {found.side}x{found.side}; digest {found.digest[:12]}",
                highlight=False,
            )
        case "ui":
            from harness.tracking import server

            server.serve(chosen.port, console)
        case "bench":
            return _run_bench(chosen, console)
    return 0


def _run_bench(chosen: argparse.Namespace, console: Console) -> int:
    match chosen.kind:
        case "ladder":
            from harness import paths
            from harness.bench import ladder, ladder_page

            lanes = ladder.default_lanes(chosen.device)
            found = ladder.ladder(chosen.device, chosen.threads, chosen.rounds, lanes, console)
            ladder_page.show(found, console)
            console.print(f"written: {ladder_page.write(found, paths.PROJECT / 'docs')}", soft_wrap=True, highlight=False)
        case "compare":
            if not chosen.base:
                raise UserError("compare with which revision? make bench-compare BASE=main")
            from harness.bench import gate

            return gate.compare(chosen.base, console, device=chosen.device)
        case "counts":
            from harness.bench import counts

            if not chosen.refresh:
                return int(counts.report(console, chosen.device))
            console.print(f"written: {counts.refresh(chosen.device)}", soft_wrap=True, highlight=False)
        case "study":
            from harness.bench import study as whole

            return whole.compare(console)
        case "gpu":
            from harness.bench import gpu

            return gpu.check(chosen.device, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
