"""The command `harness bench` and the benchmarks that are commands of it."""

import argparse
from pathlib import Path

from harness import paths
from harness.cli.command import Command
from harness.defence import Output
from harness.errors import UserError


def _add(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness bench`."""
    from harness.bench.gpu import options as gpu_options  # it imports nothing; the rooms that it stands on import torch elsewhere

    kinds = parser.add_subparsers(dest="kind", required=True, parser_class=type(parser), metavar="KIND")
    ladder = kinds.add_parser("ladder", help="every way of taking the step, side by side; writes docs/performance.md")
    compare = kinds.add_parser("compare", help="the working tree against a revision: REGRESSION, OK, IMPROVEMENT or INCONCLUSIVE")
    counts = kinds.add_parser("counts", help="operations, FLOPs and bytes of a step against the file of record")
    gpu = kinds.add_parser("gpu", help="what a GPU must show: parity, times against goals and peers, whole studies")
    kinds.add_parser("history", help="a page of all benchmarks on record: their times over commits, machine by machine")
    study = kinds.add_parser("study", help="a study from start to report beside as many steps of the usual loop")
    study.add_argument("name", nargs="?", default="", help="of the study; loss_ablation or learning_rate, by budget, unless said")
    study.add_argument("--budget", default="long", help="default (some minutes), or long (36 trials, half an hour on 2 cores)")
    compare.add_argument("base", nargs="?", default="", help="a revision of this repository")
    compare.add_argument("--no-counts", action="store_true", help="times only: where tests hold the counts already")
    compare.add_argument("--markdown", metavar="FILE", help="a file to add the verdict to, such as a job's summary on GitHub")
    counts.add_argument("--refresh", action="store_true", help="write today's counts into the file")
    for kind in (ladder, compare, counts):
        kind.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    gpu_options.add(gpu)
    ladder.add_argument("--threads", type=int, default=1, help="of this process on a CPU; 1 unless said")
    ladder.add_argument("--rounds", type=int, default=16, help="of all rungs, one after another; 16 unless said")


def _run(options: argparse.Namespace, console: Output) -> int:
    """Run `harness bench` and return the exit code."""
    if not paths.in_clone():
        raise UserError(f"harness bench {options.kind} works in a clone of the repository, and this harness is installed")
    return benchmark(options, console)


def benchmark(options: argparse.Namespace, console: Output) -> int:
    """Run the benchmark that was chosen and return the exit code."""
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


BENCH = Command(
    name="bench",
    help="how fast a training step is here, and whether it became slower",
    more="In a clone of the repository. `harness bench KIND --help` says what a benchmark takes.",
    examples=("bench compare main", "bench ladder --rounds 4", "bench study --budget default", "bench history"),
    add=_add,
    run=_run,
    at_home=False,
)
