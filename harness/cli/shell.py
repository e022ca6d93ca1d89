"""The commands about the command line itself: completion in a shell, and help."""

import argparse
from collections.abc import Iterator

from harness import catalog, resources
from harness.cli.command import Command
from harness.defence import Output
from harness.errors import look_up

SHELLS = ("bash", "zsh", "tcsh", "fish")
# What a shell offers for an option, by its name in the code, as the command that prints it. Studies of the working folder are among
# those that are listed, and none is loaded.
OFFERED = {
    "budget": "echo smoke default full",
    "device": f"echo {' '.join(resources.DEVICES)}",
    "executor": f"echo {' '.join(resources.EXECUTORS)}",
    "name": "harness list --names",
    "a": "harness list --names",
    "b": "harness list --names",
    "earlier": "harness list --names",
    "dataset": f"echo {' '.join(catalog.DATASETS)}",
}


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for below in action.choices.values():
                yield from _parsers(below)


def _add_completion(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness completion`."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def _completion(options: argparse.Namespace, console: Output) -> int:
    """Run `harness completion` and return the exit code."""
    import shtab

    from harness.cli.parsing import parser

    root = parser()
    for below in _parsers(root):
        for action in below._actions:
            if action.dest in OFFERED and not below.prog.endswith(" init"):
                action.complete = shtab.cmd(OFFERED[action.dest])  # type: ignore[attr-defined]  # shtab reads this of argparse's actions
    print(shtab.complete(root, options.shell))
    return 0


def _add_help(parser: argparse.ArgumentParser) -> None:
    """Add the options of `harness help`."""
    parser.add_argument("about", nargs="?", default="", metavar="COMMAND", help="one of the commands; all of them unless said")


def _help(options: argparse.Namespace, console: Output) -> int:
    """Run `harness help` and return the exit code."""
    from harness.cli.parsing import GROUPS, parser

    names = {command.name: [command.name] for commands in GROUPS.values() for command in commands}
    parser().parse_args([*(look_up(names, options.about, "command") if options.about else ()), "--help"])  # which ends this process
    return 0


COMPLETION = Command(
    name="completion",
    help="print what lets a shell complete commands, studies and options",
    examples=(
        "completion bash > ~/.local/share/bash-completion/completions/harness",
        "completion zsh > ~/.zfunc/_harness",
        "completion fish > ~/.config/fish/completions/harness.fish",
    ),
    add=_add_completion,
    run=_completion,
    at_home=False,
)
HELP = Command(
    name="help",
    help="this, or what a command does and takes",
    examples=("help", "help study"),
    add=_add_help,
    run=_help,
    at_home=False,
)
