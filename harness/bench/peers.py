"""Peers: other programs that train the reference model, each in a process of its own, where their packages are installed.

JAX takes its threads from the environment, and trainers change what a whole process shares: log levels, warnings, handlers of
signals. The parent sends the job as a line of JSON, then a line per chunk of steps; the child trains the chunk and answers with the
time that it took and its loss.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from harness.errors import MachineError


def version(package: str) -> str:
    """Return the version of a package, or an empty text if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def absent(packages: Sequence[str]) -> str:
    """Return what is said of a peer without its packages."""
    return f"absent; pip install {' '.join(packages)}"


class Peer:
    """A child process that trains. It ends with its context.

    Args:
        name: of the peer, for people.
        module: of this package, which the child runs.
        packages: what it needs.
        environment: of the child, beside this process's own.
        job: what the child asks for.

    Attributes:
        started: the child's first answer.

    Raises:
        MachineError: a package is not installed, or the child ended.
    """

    def __init__(self, name: str, module: str, packages: Sequence[str], environment: Mapping[str, str], job: Any) -> None:
        if not all(find_spec(package) for package in packages):
            raise MachineError(absent(packages))
        self._name = name
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # until `end`; a pipe that is not read fills up
        self._child = subprocess.Popen(
            [sys.executable, "-m", f"harness.bench.{module}"],
            env={**os.environ, **environment},
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            self.started = self.ask(job)
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self.end()

    def call(self) -> tuple[float, float]:
        """Train a chunk and return its seconds on the wall and on all cores."""
        answer = self.ask({})
        return answer["wall"], answer["cpu"]

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send a line to the child and return its answer.

        Raises:
            MachineError: the child has ended; the message is its last line.
        """
        requests, answers = self._child.stdin, self._child.stdout
        assert requests is not None
        assert answers is not None
        try:
            print(json.dumps(question), file=requests, flush=True)
            answer = answers.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._child.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:]
            raise MachineError(f"{self._name} ended: {''.join(last) or 'without a word'}")
        values: dict[str, Any] = json.loads(answer)
        return values

    def end(self) -> None:
        """Kill the child and wait for its end."""
        self._child.kill()
        self._child.communicate()
        self._errors.close()
