"""The command line: `harness study`, `harness runs` and so on. The Makefile's targets are one-liners over it.

In come words, out go an exit code and text, or one JSON document. Each command is one `Command`: its words, its options, and a few
lines that call what does the work and import it only then, because torch and MLflow take seconds and a slip should be told at once.
How anything is done does not belong here.
"""

from harness.cli.parsing import parser
from harness.cli.running import main

__all__ = ["main", "parser"]
