"""The commands to begin with, and those to look at things: list, init, data, ui."""

import argparse
from functools import partial

from harness import study
from harness.cli import options as opt
from harness.cli.command import Command, emit
from harness.defence import Output


def _add_list(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness list`."""
    parser.add_argument("--budget", default="", help="the cost of this budget alone; of each budget unless said")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--names", action="store_true", help="the names alone, one a line; no study is loaded")
    what.add_argument("--scores", action="store_true", help="the scores that studies may rank by or claim, instead of studies")
    opt.as_json(parser)


def _list(options: argparse.Namespace, console: Output) -> int:
    """Run `harness list` and return the exit code."""
    from harness.cli import listing

    if options.names:
        names = study.names()
        emit(names) if options.json else console.print("\n".join(names), soft_wrap=True, highlight=False)
    elif options.scores:
        rows = listing.scores()
        emit({"scores": rows}) if options.json else listing.show_scores(rows, console)
    elif options.json:
        emit(listing.as_dict(options.budget))
    else:
        listing.show(options.budget, console)
    return 0


def _add_init(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness init`."""
    parser.add_argument("name", nargs="?", default="first_study", help="of the study; first_study unless said")


def _init(options: argparse.Namespace, console: Output) -> int:
    """Run `harness init` and return the exit code."""
    console.print(study.write_first(options.name), soft_wrap=True, highlight=False)
    return 0


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness data`."""
    parser.add_argument("dataset", nargs="?", default="mnist", help="mnist, npz:faces.npz, images:folder/, file.py:name, ...")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="dataset_args.resize=32")
    opt.as_json(parser)


def _data(options: argparse.Namespace, console: Output) -> int:
    """Run `harness data` and return the exit code."""
    from harness import data

    spec = study.data_set(options.dataset, options.set)
    say = partial(console.print, soft_wrap=True, highlight=False)
    dataset = data.load_dataset(spec.dataset, say, spec.dataset_args)
    from harness import figures  # with torch, as what is loaded: data that are refused are so before

    found = data.describe(dataset)
    for line in () if options.json else data.in_words(dataset, found):
        say(line)
    sheet = figures.write_contact_sheet(dataset)
    if options.json:
        emit(data.as_dict(dataset, found) | {"picture": str(sheet)})
    else:
        say(f"some of them: {sheet}")
    return 0


def _port(text: str) -> int:
    """Return a text as the number of a port that a user may take."""
    if not text.isdecimal() or not 1 <= int(text[:6]) < 2**16:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to {2**16 - 1}, got {text!r}")
    return int(text)


def _add_ui(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness ui`."""
    parser.add_argument("--port", type=_port, default=5000, help="of 127.0.0.1; 5000 unless said")


def _ui(options: argparse.Namespace, console: Output) -> int:
    """Run `harness ui` and return the exit code."""
    from harness.tracking import server

    server.serve(options.port, console)
    return 0


LIST = Command(
    name="list",
    help="all studies with their questions, and what they cost here",
    more="The cost of a budget: trials x epochs, and the time they take on this machine's CPU, from what is on record of it or, "
    "for images like MNIST's, from a stated rate.\n\n"
    "The document of --json: studies (name, question, file, kind, error, budgets), each budget with budget, trials, epochs, "
    "seconds (null if not known), basis (this budget, another budget, stated rate, or empty) and at_least. With --scores: "
    "scores (key, label, better, tier, group, images).",
    examples=("list", "list --budget smoke", "list --scores", "list --json"),
    add=_add_list,
    run=_list,
    at_home=False,
)
INIT = Command(
    name="init",
    help="write a first study of your own into this folder",
    examples=("init", "init my_question"),
    add=_add_init,
    run=_init,
    at_home=False,
)
DATA = Command(
    name="data",
    help="fetch, check and show a data set",
    more="The document of --json: name, channels, height, width, train, validation, test (numbers of images), classes (images by "
    "label, or null), levels (images' values by grey level), equal, constant (numbers of images), digest, picture.",
    examples=("data mnist", "data images:pets/ --set dataset_args.resize=32", "data npz:faces.npz --json"),
    add=_add_data,
    run=_data,
)
UI = Command(
    name="ui",
    help="browse all runs in MLflow, on this machine only",
    examples=("ui", "ui --port 5001"),
    add=_add_ui,
    run=_ui,
)
