"""The command line: `harness study|report|plan|verify|replay|doctor|...`. The Makefile's targets are one-liners over it."""

import argparse
import atexit
import gc
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from harness import defence, paths, provenance, resources, study
from harness.errors import UserError, nearest

AT_HOME = {"study", "report", "doctor", "plan", "verify", "replay", "data", "ui"}  # the commands that use the home folder
ALLOCATIONS = 200_000  # between two runs of the garbage collector, 700 by default: a fifth of the time that imports take
SETTINGS = "change a field of the base or of the budgets: latent=10, budget.epochs=3, seeds=range(3)"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are raised as `UserError`, with the usage or the nearest name. All parsers take `--debug`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")

    # argparse declares overloads of this for namespaces of other types, which nobody here gives
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return what argparse does, and raise an error for options of a command that it does not know."""
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            known = re.findall(r"--[\w-]+", self.format_usage())
            first = next((word.partition("=")[0] for word in rest if word.startswith("--")), "")
            self.error(f"unrecognized arguments: {' '.join(rest)}{nearest(first, known)}")
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """Raise the message as a `UserError` instead of exiting."""
        wrong = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if wrong:
            names = re.findall(r"[\w-]+", wrong[2])
            raise UserError(f"unknown command {wrong[1]!r}{nearest(wrong[1], names)}\nknown: {', '.join(names)}")
        message = re.sub(r"invalid int value: (.*)", r"a whole number is needed, got \1", message)
        raise UserError(f"{message}\n{' '.join(self.format_usage().split())}")


def _port(text: str) -> int:
    """Return a text as the number of a port that a user may take."""
    if not text.isdecimal() or not 1 <= int(text[:6]) < 2**16:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to {2**16 - 1}, got {text!r}")
    return int(text)


class _Version(argparse.Action):
    """The option that prints version and code and ends. git is asked only then."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> None:
        """Print the version, then what the record of a run calls this code."""
        print(f"vae-harness {provenance.version('vae-harness')} (code {provenance.code()}, digest {provenance.digest()})")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their options."""
    root = _Parser(prog="harness", description="Variational autoencoders compared with numbers one can trust.")
    root.add_argument("--version", action=_Version, nargs=0, help="version and digest of the code")
    commands = root.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="COMMAND")
    study_command = commands.add_parser("study", help="run what is missing of a study, then report")
    report_command = commands.add_parser("report", help="show and rewrite the report of a study from what is on record")
    doctor_command = commands.add_parser("doctor", help="say what is wrong with finished runs; exit code 1 if something is")
    plan_command = commands.add_parser("plan", help="what a study claims, since when, and what its seeds can show; runs nothing")
    for command in (study_command, report_command, doctor_command, plan_command):
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=SETTINGS)
        command.add_argument("--arms", default="", help="the arms to keep, with commas between them; all unless said")
        command.add_argument("name", nargs="?", default="", help="one that `harness list` shows, ./file.py or package.module")
    verify_command = commands.add_parser("verify", help="hold everything on record of a study or run against its manifests")
    replay_command = commands.add_parser("replay", help="train runs on record again, the same way, and compare bit by bit")
    for command in (verify_command, replay_command):
        command.add_argument("name", help="the id of a run, or a study as `harness study` takes it")
    for command in (study_command, report_command, plan_command, verify_command, replay_command):
        command.add_argument("--budget", default="default", help="smoke, default, full, or another that the study defines")
    replay_command.add_argument("--runs", type=int, default=1, help="of a study, spread evenly over its arms; 1 unless said")
    plan_command.add_argument("--from", dest="earlier", default="", metavar="STUDY", help="whose results say how far scores spread")
    for command in (study_command, report_command, plan_command, verify_command):
        command.add_argument(
            "--storage", default="", help="postgresql+psycopg://user@host/database, for several drivers; else a file in mlruns/"
        )
    doctor_command.add_argument("--budget", help="default unless said; without a study, all that have runs")
    study_command.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:N")
    study_command.add_argument("--workers", type=int, help="trainings at a time; unless said one per core, or per GPU")
    study_command.add_argument("--workers-per-gpu", type=int, default=1, help="trainings that share a GPU; 1 unless said")
    study_command.add_argument("--anew", action="store_true", help="beside the study's experiment, which was deleted in MLflow")
    study_command.add_argument("--executor", default="processes", help="local, processes, ray, slurm")
    commands.add_parser("list", help="all studies with their questions")
    init_command = commands.add_parser("init", help="write a first study of your own into this folder")
    init_command.add_argument("name", nargs="?", default="first_study", help="of the study; first_study unless said")
    data_command = commands.add_parser("data", help="fetch, check and show a data set")
    data_command.add_argument("dataset", nargs="?", default="mnist", help="mnist, npz:faces.npz, images:folder/, file.py:name, ...")
    data_command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dataset_args.resize=32")
    ui_command = commands.add_parser("ui", help="browse all runs in MLflow, on this machine only")
    ui_command.add_argument("--port", type=_port, default=5000)
    _bench(commands.add_parser("bench", help="how fast a training step is here, and whether it became slower"))
    return root


def _bench(bench: argparse.ArgumentParser) -> None:
    """Add the benchmarks, which are commands of `harness bench`, to its parser."""
    from harness.bench.gpu import options  # it imports nothing; the rooms that this one stands on import torch elsewhere

    commands = bench.add_subparsers(dest="kind", required=True, parser_class=_Parser, metavar="KIND")
    ladder = commands.add_parser("ladder", help="every way of taking the step, side by side; writes docs/performance.md")
    compare = commands.add_parser(
        "compare", help="the working tree against a revision: REGRESSION, OK, IMPROVEMENT or INCONCLUSIVE"
    )
    counts = commands.add_parser("counts", help="operations, FLOPs and bytes of a step against the file of record")
    gpu = commands.add_parser("gpu", help="what a GPU must show: parity, times against goals and peers, whole studies")
    commands.add_parser("history", help="a page of all benchmarks on record: their times over commits, machine by machine")
    study = commands.add_parser("study", help="a study from start to report beside as many steps of the usual loop")
    study.add_argument("name", nargs="?", default="", help="of the study; loss_ablation or learning_rate, by budget, unless said")
    study.add_argument("--budget", default="long", help="default (some minutes), or long (36 trials, half an hour on 2 cores)")
    compare.add_argument("base", nargs="?", default="", help="a revision of this repository")
    compare.add_argument("--no-counts", action="store_true", help="times only: where tests hold the counts already")
    compare.add_argument("--markdown", metavar="FILE", help="a file to add the verdict to, such as a job's summary on GitHub")
    counts.add_argument("--refresh", action="store_true", help="write today's counts into the file")
    for command in (ladder, compare, counts):
        command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    options.add(gpu)
    ladder.add_argument("--threads", type=int, default=1, help="of this process on a CPU; 1 unless said")
    ladder.add_argument("--rounds", type=int, default=16, help="of all rungs, one after another; 16 unless said")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code.

    It is 2 for an error of the user, 3 for the data, 4 for the machine, 70 for what nobody expected, 130, 143 or 129 if SIGINT,
    SIGTERM or SIGHUP stopped the command, and 141 if whoever read its output has gone.
    """
    if not re.fullmatch("[1-9][0-9]{0,5}", os.environ.get("COLUMNS", "80")):
        del os.environ["COLUMNS"]  # a width of 0 prints nothing, errors included, and one that is no number ends in an exception
    atexit.register(gc.freeze)  # else the interpreter's last collections take 0.7 s to free what its end frees anyway
    given = sys.argv[1:] if arguments is None else list(arguments)
    with _fewer_collections():
        return defence.guarded(lambda: _run(parser().parse_args(given), defence.Output()), debug="--debug" in given)


@contextmanager
def _fewer_collections() -> Iterator[None]:
    """Let the garbage collector run seldom in the block: what a command imports stays for as long as it runs."""
    before = gc.get_threshold()
    gc.set_threshold(ALLOCATIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _run(options: argparse.Namespace, console: Console) -> int:
    """Run the command that was chosen and return the exit code."""
    if options.command in AT_HOME:
        from harness.stores import homes  # with SQLAlchemy, which the others do without

        homes.check_path()
    # Each branch imports what it needs: torch and MLflow take seconds to import, and a misspelt name should be reported at once.
    if options.command in ("study", "report", "doctor", "plan"):
        arms = tuple(arm.strip() for arm in options.arms.split(",") if arm.strip())
        changes = study.Overrides(tuple(options.set), arms)
        if changes and not options.name:
            raise UserError(f"{changes}: of which study?")
        options.name += str(changes)
    match options.command:
        case "study" | "report" | "plan":
            if not options.name:
                raise UserError(f"which study? {paths.command(options.command, name='...')}\n{study.questions()}")
            study.check(options.name, options.budget)
            if options.command == "study":
                resources.check(options.device, options.executor, options.workers, options.workers_per_gpu)
            if options.command == "plan":
                from harness import report

                earlier = study.load(options.earlier) if options.earlier else None
                report.show_plan(study.load(options.name), options.budget, console, storage=options.storage, earlier=earlier)
                return 0
            if options.command == "report":
                from harness.runner import outcome

                return outcome.report_study(options.name, options.budget, console, storage=options.storage)
            from harness.runner import commands

            return commands.run_study(
                options.name,
                options.budget,
                options.device,
                options.workers,
                console,
                per_gpu=options.workers_per_gpu,
                executor=options.executor,
                storage=options.storage,
                anew=options.anew,
            )
        case "doctor":
            if options.name:
                study.check(options.name, options.budget or "default")
            from harness import doctor

            return doctor.examine(options.name, options.budget, console)
        case "verify":
            from harness.evidence.verify import verify

            return verify(options.name, options.budget, console, storage=options.storage)
        case "replay":
            from harness.evidence.replay import replay

            return replay(options.name, options.budget, options.runs, console)
        case "list":
            console.print(study.questions(), soft_wrap=True, highlight=False, markup=False)
        case "init":
            console.print(study.write_first(options.name), soft_wrap=True, highlight=False, markup=False)
        case "data":
            from harness import data

            spec = study.data_set(options.dataset, options.set)
            say = partial(console.print, soft_wrap=True, highlight=False, markup=False)
            dataset = data.load_dataset(spec.dataset, say, spec.dataset_args)
            from harness import figures  # with torch, as what is loaded: data that are refused are so before

            for line in data.in_words(dataset):
                say(line)
            say(f"some of them: {figures.write_contact_sheet(dataset)}")
        case "ui":
            from harness.tracking import server

            server.serve(options.port, console)
        case "bench":
            return _run_bench(options, console)
    return 0


def _run_bench(options: argparse.Namespace, console: Console) -> int:
    """Run the benchmark that was chosen and return the exit code."""
    if not paths.in_clone():
        raise UserError(f"harness bench {options.kind} works in a clone of the repository, and this harness is installed")
    match options.kind:
        case "ladder":
            from harness.bench import ladder, ladder_page

            lanes = ladder.default_lanes(options.device)
            results = ladder.ladder(options.device, options.threads, options.rounds, lanes, console)
            ladder_page.show(results, console)
            console.print(f"written: {ladder_page.write(results, paths.PROJECT / 'docs')}", soft_wrap=True, highlight=False)
        case "compare":
            if not options.base:
                raise UserError("compare with which revision? make bench-compare BASE=main")
            from harness.bench import gate

            file = Path(options.markdown) if options.markdown else None
            return gate.compare(options.base, console, device=options.device, with_counts=not options.no_counts, markdown=file)
        case "counts":
            from harness.bench import counts

            if not options.refresh:
                return int(counts.report(console, options.device))
            console.print(f"written: {counts.refresh(options.device)}", soft_wrap=True, highlight=False)
        case "history":
            from harness.bench import history, history_page

            page = history_page.write(history.read(history.folder()), history.folder())
            console.print(f"written: {page}", soft_wrap=True, highlight=False, markup=False)
        case "study":
            from harness.bench import study as study_bench

            return study_bench.compare(console, options.name, options.budget)
        case "gpu":
            from harness.bench.gpu import checks

            return checks.check(options, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
