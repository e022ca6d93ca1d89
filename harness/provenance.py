"""The origin of a run, as it is recorded with it: commit, versions, machine and command."""

import hashlib
import os
import platform
import re
import shlex
import shutil
import socket
import subprocess
import sys
from functools import cache
from importlib import metadata

from harness import paths

RECORD_SCHEMA = "1"


def _git(*arguments: str) -> str | None:
    """Return what `git` prints in the project's folder; None if git is not installed or the command fails."""
    git = shutil.which("git")
    if git is None:
        return None
    completed = subprocess.run([git, "-C", str(paths.PROJECT), *arguments], capture_output=True, text=True, check=False)
    return completed.stdout.strip() if completed.returncode == 0 else None


@cache
def commit() -> str:
    """Return the project's commit, 12 digits, with `+dirty` if tracked files differ from it; `unknown` outside a repository."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "unknown"
    return head + ("+dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


@cache
def code() -> str:
    """Return the commit and, if tracked files differ from it, a digest of the difference.

    Equal code gives equal text.
    """
    head, _, dirty = commit().partition("+")
    return f"{head}+{hashlib.sha256((_git('diff', 'HEAD') or '').encode()).hexdigest()[:12]}" if dirty else head


def version(package: str) -> str:
    """Return the version of an installed package, or `absent`: benchmarks run from a checkout, without some or even the harness."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def tags() -> dict[str, str]:
    """Return the tags that every run has: commit, versions, host and schema of the record. None of them needs torch."""
    head, _, dirty = commit().partition("+")
    return {
        "git.commit": head,
        "git.dirty": str(bool(dirty)).lower(),
        "version.harness": version("vae-harness"),
        "version.python": platform.python_version(),
        "version.torch": version("torch"),
        "version.optuna": version("optuna"),
        "version.mlflow": version("mlflow"),
        "host": socket.gethostname(),
        "harness.schema": RECORD_SCHEMA,
    }


def command() -> str:
    """Return the command as the user typed it, with passwords in URIs left out.

    It is `$HARNESS_COMMAND`, which make sets, or else this process's own arguments.
    """
    typed = os.environ.get("HARNESS_COMMAND") or shlex.join(["harness", *sys.argv[1:]])
    return re.sub(r"(://[^/:@\s]+):[^@\s]*@", r"\1@", typed)
