"""The commands about what is on record: runs, doctor, verify, replay."""

import argparse

from harness import study
from harness.cli import options as opt
from harness.cli.command import Command, emit
from harness.defence import Output


def _add_runs(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness runs`."""
    parser.add_argument("name", nargs="?", default="", help="a study, of which each trial is shown; all studies unless said")
    parser.add_argument("--budget", default="", help="of the study; default unless said; without a study, all that have runs")
    opt.as_json(parser)


def _runs(options: argparse.Namespace, console: Output) -> int:
    """Run `harness runs` and return the exit code."""
    from harness.runner import runs

    if options.name:
        trials = runs.of_study(options.name, options.budget or "default")
        emit(trials.as_dict()) if options.json else runs.show_trials(trials, console)
    else:
        books = runs.of_all(options.budget)
        emit({"studies": [book.as_dict() for book in books]}) if options.json else runs.show_studies(books, console)
    return 0


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness doctor`."""
    opt.study_name(parser)
    parser.add_argument("--budget", help="default unless said; without a study, all that have runs")
    opt.as_json(parser)


def _doctor(options: argparse.Namespace, console: Output) -> int:
    """Run `harness doctor` and return the exit code."""
    name = opt.changed(options)
    if name:
        study.check(name, options.budget or "default")
    from harness import doctor

    if options.json:
        examined = doctor.examinations(name, options.budget)
        emit({"studies": [one.as_dict() for one in examined]})
        return int(any(one.wrong for one in examined))
    return doctor.examine(name, options.budget, console)


def _one(parser: argparse.ArgumentParser) -> None:
    """Add what `verify` and `replay` are about: a run, or a study and budget."""
    parser.add_argument("name", help="the id of a run, or a study as `harness study` takes it")
    opt.budget(parser)


def _verify(options: argparse.Namespace, console: Output) -> int:
    """Run `harness verify` and return the exit code."""
    from harness.evidence import verify

    if options.json:
        books = verify.hold(options.name, options.budget, storage=options.storage)
        emit(verify.as_dict(books, options.name))
        return int(bool(books.found.lines))
    return verify.verify(options.name, options.budget, console, storage=options.storage)


def _add_replay(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness replay`."""
    _one(parser)
    parser.add_argument("--runs", type=int, default=1, help="of a study, spread evenly over its arms; 1 unless said")


def _replay(options: argparse.Namespace, console: Output) -> int:
    """Run `harness replay` and return the exit code."""
    from harness.evidence.replay import replay

    return replay(options.name, options.budget, options.runs, console)


RUNS = Command(
    name="runs",
    help="the runs on record: of all studies, or each trial of one",
    more="A trial counts by its newest run. `running` is what the record says: a driver that was killed cannot take it back, and "
    "the next start of the study does.\n\n"
    "The document of --json: studies (study, budget, finished, pruned, running, failed, killed, first, last, seconds, report); "
    "with a study: study, budget, report, trials (arm, seed, status, run, begun, seconds, failure, scores by key).",
    examples=("runs", "runs loss_ablation --budget smoke", "runs loss_ablation --json"),
    add=_add_runs,
    run=_runs,
)
DOCTOR = Command(
    name="doctor",
    help="say what is wrong with finished runs; exit code 1 if something is",
    more="What to do now comes first: numbers that do not mean what they claim. Then what is to be looked at, then what is good to "
    "know.\n\n"
    "The document of --json: studies (study, budget, finished, planned, findings), each finding with group (do now, look at, "
    "good to know), severity (wrong, careful, note), arm (null for the whole study), what and advice.",
    examples=("doctor", "doctor loss_ablation --budget smoke", "doctor loss_ablation --json"),
    add=_add_doctor,
    run=_doctor,
)
VERIFY = Command(
    name="verify",
    help="hold everything on record of a study or run against its manifests",
    more="The document of --json: of, budget, faults, runs, files, scores (numbers of what was held), others (runs that have not "
    "finished, by status), elsewhere (what is not on this machine), summary.",
    examples=("verify loss_ablation", "verify loss_ablation --budget smoke --json"),
    add=opt.together(_one, opt.storage, opt.as_json),
    run=_verify,
)
REPLAY = Command(
    name="replay",
    help="train runs on record again, the same way, and compare bit by bit",
    examples=("replay loss_ablation", "replay loss_ablation --budget smoke --runs 3"),
    add=_add_replay,
    run=_replay,
)
