"""Commands that must be refused: run as processes, in homes whose files are compared with what they were before."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LONGEST = 6  # lines of an error message

# Runs a command as `harness` does, then leaves word which of the slowest packages it imported.
AS_A_COMMAND = """
import pathlib, sys
from harness.cli import main
word, *arguments = sys.argv[1:]
code = main(arguments)
pathlib.Path(word).write_text(" ".join(name for name in ("torch", "pandas", "mlflow") if name in sys.modules))
sys.exit(code)
"""


@dataclass(frozen=True)
class Told:
    """What a command did.

    Attributes:
        code: Its exit code, negative if a signal ended it.
        out: What it printed.
        err: What it said on the error channel.
        imported: Which of the packages it imported that take longest: torch, pandas and MLflow.
        changed: Files and folders of the home that came, went or have other bytes.
    """

    code: int
    out: str
    err: str
    imported: list[str]
    changed: list[str]


def fingerprint(folder: Path) -> dict[str, str]:
    """Return the digest of every file below a folder by path, "" for folders; nothing if there is no such folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        whole = path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest() if whole else ""
    return found


def run(arguments: Sequence[str], home: Path, *, environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Told:
    """Run `harness` with these arguments in a home, with more of an environment and in a working folder if given."""
    word = home.parent / f"{home.name}.imported"
    word.unlink(missing_ok=True)
    before = fingerprint(home)
    settings = {**os.environ, "HARNESS_HOME": str(home), **(environment or {})}
    command = [sys.executable, "-c", AS_A_COMMAND, str(word), *arguments]
    done = subprocess.run(command, capture_output=True, env=settings, cwd=folder, check=False)
    after = fingerprint(home)
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return Told(done.returncode, out, err, word.read_text().split() if word.exists() else [], changed)


def assert_refused(told: Told, code: int, *says: str, lines: int = LONGEST) -> None:
    """Assert that a command was refused as it should be.

    It ends with `code`, says all of `says` in at most `lines` lines on the error channel, prints no traceback, changes nothing in
    its home and has not imported torch.
    """
    assert told.code == code, told
    assert "Traceback" not in told.err + told.out, told.err
    assert told.err.startswith("harness: "), told.err
    for words in says:
        assert words in told.err, told.err
    assert len(told.err.strip().splitlines()) <= lines, told.err
    assert told.changed == []
    assert "torch" not in told.imported
