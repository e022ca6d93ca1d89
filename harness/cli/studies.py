"""The commands about one study, or two: study, report, plan, freeze, compare."""

import argparse

from harness import resources, study
from harness.cli import options as opt
from harness.cli.command import Command, emit
from harness.defence import Output


def _add_study(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness study`."""
    opt.together(opt.study_name, opt.budget)(parser)
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:N")
    parser.add_argument("--executor", default="processes", help="local, processes, ray, slurm")
    parser.add_argument("--workers", type=int, help="trainings at a time; unless said one per core, or per GPU")
    parser.add_argument("--workers-per-gpu", type=int, default=1, help="trainings that share a GPU; 1 unless said")
    parser.add_argument("--anew", action="store_true", help="beside the study's experiment, which was deleted in MLflow")
    opt.together(opt.storage, opt.quiet)(parser)


def _study(options: argparse.Namespace, console: Output) -> int:
    """Run `harness study` and return the exit code."""
    name = opt.required(options)
    resources.check(options.device, options.executor, options.workers, options.workers_per_gpu)
    from harness.runner import commands

    console.quiet = options.quiet
    return commands.run_study(
        name,
        options.budget,
        options.device,
        options.workers,
        console,
        per_gpu=options.workers_per_gpu,
        executor=options.executor,
        storage=options.storage,
        anew=options.anew,
    )


def _report(options: argparse.Namespace, console: Output) -> int:
    """Run `harness report` and return the exit code."""
    name = opt.required(options)
    from harness.runner import outcome

    console.quiet = options.quiet
    return outcome.report_study(name, options.budget, console, storage=options.storage)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness plan`."""
    opt.together(opt.study_name, opt.budget)(parser)
    parser.add_argument("--from", dest="earlier", default="", metavar="STUDY", help="whose results say how far scores spread")
    opt.together(opt.storage, opt.as_json)(parser)


def _plan(options: argparse.Namespace, console: Output) -> int:
    """Run `harness plan` and return the exit code."""
    name = opt.required(options)
    from harness import report

    loaded, earlier = study.load(name), study.load(options.earlier) if options.earlier else None
    if options.json:
        emit(report.plan_on_record(loaded, options.budget, storage=options.storage, earlier=earlier).as_dict())
    else:
        report.show_plan(loaded, options.budget, console, storage=options.storage, earlier=earlier)
    return 0


def _add_freeze(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness freeze`."""
    opt.together(opt.study_name, opt.budget)(parser)
    parser.add_argument("--out", default="", metavar="FOLDER", help="the folder to write; named after the study unless said")
    opt.storage(parser)


def _freeze(options: argparse.Namespace, console: Output) -> int:
    """Run `harness freeze` and return the exit code."""
    name = opt.required(options)
    from harness.runner.freezing import freeze_study

    return freeze_study(name, options.budget, console, out=options.out, storage=options.storage)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness compare`."""
    for side, words in (("a", "a study, study@budget or a folder"), ("b", "the same; differences are B minus A")):
        parser.add_argument(side, metavar=side.upper(), help=words)
    parser.add_argument("--out", default="", metavar="FOLDER", help="for the page; one in mlruns/reports unless said")
    opt.as_json(parser)


def _compare(options: argparse.Namespace, console: Output) -> int:
    """Run `harness compare` and return the exit code."""
    from harness.runner.comparing import compare

    return compare(options.a, options.b, console, out=options.out, json=options.json)


STUDY = Command(
    name="study",
    help="run what is missing of a study, then report",
    more="Stop it whenever you like, by Ctrl-C or otherwise: the same command goes on where it left off, and does nothing when all "
    "is done. A study is one that `harness list` shows, a file of your own (./mine.py) or a module. --set and --arms make a "
    "study of its own name and record.",
    examples=(
        "study loss_ablation --budget smoke",
        "study ./mine.py --workers 2 --quiet",
        'study loss_ablation --set latent=10 --set "seeds=range(3)" --arms bce,mse',
        "study loss_ablation --device cuda",
    ),
    add=_add_study,
    run=_study,
)
REPORT = Command(
    name="report",
    help="show and rewrite the report of a study from what is on record",
    examples=("report loss_ablation", "report loss_ablation --budget smoke --quiet"),
    add=opt.together(opt.study_name, opt.budget, opt.storage, opt.quiet),
    run=_report,
)
PLAN = Command(
    name="plan",
    help="what a study claims, since when, and what its seeds can show; runs nothing",
    more="The document of --json: study, budget, shape, epochs, plan (version, time, sha256; null before the first run), "
    "changed (whether the file says something else than the plan), looks, faults, rule, claims (claim, metric, better, "
    "worse, margin, standing, seeds, sight).",
    examples=("plan loss_ablation", "plan loss_ablation --budget full --from loss_ablation", "plan loss_ablation --json"),
    add=_add_plan,
    run=_plan,
)
FREEZE = Command(
    name="freeze",
    help="write a study's record into one folder that opens without a server",
    examples=("freeze loss_ablation", "freeze loss_ablation --budget smoke --out paper/loss"),
    add=_add_freeze,
    run=_freeze,
)
COMPARE = Command(
    name="compare",
    help="two studies, budgets or folders side by side: what differs, and by how much",
    more="A and B are each a study as `harness study` takes it, with @BUDGET behind it for another budget than the default one; "
    "or a folder: a frozen study, a report's folder, or another home or clone, of which the other side's study is taken.",
    examples=(
        "compare loss_ablation@smoke loss_ablation",
        "compare loss_ablation ../other-clone",
        "compare frozen/loss_ablation loss_ablation --json",
    ),
    add=_add_compare,
    run=_compare,
)
