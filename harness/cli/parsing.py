"""The parser of all commands, its help, and its errors as a user reads them."""

import argparse
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from harness import provenance
from harness.cli import benchmarks, records, shell, starting, studies
from harness.cli.command import Command
from harness.errors import UserError, nearest

# All commands, under the headings of the program's help.
GROUPS: Mapping[str, Sequence[Command]] = {
    "train, and read what came out": (studies.STUDY, studies.REPORT, studies.COMPARE, studies.FREEZE),
    "before it trains": (starting.LIST, studies.PLAN, starting.INIT, starting.DATA),
    "what is on record": (records.RUNS, starting.UI, records.DOCTOR, records.VERIFY, records.REPLAY),
    "beside that": (benchmarks.BENCH, shell.COMPLETION, shell.HELP),
}
DESCRIPTION = "Variational autoencoders compared with numbers one can trust."
FIRST = """\
begin with:
  harness list                                 what studies cost here
  harness study loss_ablation --budget smoke   try one, in a minute
  harness study loss_ablation                  run it, or go on with it
"""
CODES = (
    "`harness COMMAND --help` says more, with examples. Exit codes: 0 done; 1 a trial failed, or something on record is wrong; 2 a "
    "slip in the command or the study; 3 the data; 4 the machine; 70 a fault of the harness; 130 stopped."
)
EXAMPLES = "examples:"


class _Formatter(argparse.HelpFormatter):
    """The form of a command's help: paragraphs filled to the width of the terminal, and examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(EXAMPLES):
            return text
        return "\n\n".join(textwrap.fill(paragraph, width) for paragraph in text.split("\n\n"))


class Parser(argparse.ArgumentParser):
    """A parser whose errors are raised as `UserError`, with the usage or the nearest name. All parsers take `--debug`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=_Formatter, **settings)
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
        wrong = re.search(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if wrong:
            names = re.findall(r"[\w-]+", wrong[3])
            what = "command" if wrong[1] == "KIND" else wrong[1].lower()
            raise UserError(f"unknown {what} {wrong[2]!r}{nearest(wrong[2], names)}\nknown: {', '.join(names)}")
        message = re.sub(r"invalid int value: (.*)", r"a whole number is needed, got \1", message)
        raise UserError(f"{message}\n{' '.join(self.format_usage().split())}")


class _Root(Parser):
    """The parser of the program itself, whose help has the commands in groups."""

    def format_help(self) -> str:
        """Return the help: how it is called, the commands, and where to begin."""
        width = shutil.get_terminal_size().columns - 2
        lines = ["usage: harness COMMAND ...", "", DESCRIPTION]
        for title, commands in GROUPS.items():
            lines += ["", f"{title}:"]
            for command in commands:
                lines += textwrap.wrap(f"  {command.name:<11} {command.help}", max(width, 40), subsequent_indent=" " * 14)
        return "\n".join([*lines, "", FIRST, textwrap.fill(CODES, max(width, 40)), ""])


class _Version(argparse.Action):
    """The option that prints version and code and ends. git is asked only then."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> None:
        """Print the version, then what the record of a run calls this code."""
        print(f"vae-harness {provenance.version('vae-harness')} (code {provenance.code()}, digest {provenance.digest()})")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their options."""
    root = _Root(prog="harness", description=DESCRIPTION)
    root.add_argument("--version", action=_Version, nargs=0, help="version and digest of the code")
    added = root.add_subparsers(dest="command", required=True, parser_class=Parser, metavar="COMMAND")
    for command in (command for commands in GROUPS.values() for command in commands):
        words = "\n\n".join(filter(None, (f"{command.help[0].upper()}{command.help[1:]}.", command.more)))
        epilog = "\n".join([EXAMPLES, *(f"  harness {example}" for example in command.examples)])
        own = added.add_parser(command.name, help=command.help, description=words, epilog=epilog)
        command.add(own)
        own.set_defaults(chosen=command)
    return root
