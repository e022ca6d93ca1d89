"""What a run records about its origin: code, versions, machine."""

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
from importlib.metadata import version

from harness import paths

SCHEMA = "1"


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, "-C", str(paths.PROJECT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def commit() -> str:
    """The project's commit, 12 digits, `+dirty` where tracked files differ from it; `unknown` outside a repository."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "unknown"
    return head + ("+dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


@cache
def code() -> str:
    """The commit and, where tracked files differ from it, a digest of the difference: equal code, equal text."""
    head, _, dirty = commit().partition("+")
    return f"{head}+{hashlib.sha256((_git('diff', 'HEAD') or '').encode()).hexdigest()[:12]}" if dirty else head


def tags() -> dict[str, str]:
    """Facts that every run is tagged with, known without torch."""
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
        "harness.schema": SCHEMA,
    }


def command() -> str:
    """The command as the user typed it, but for passwords: what make says it ran, or this process's own arguments."""
    typed = os.environ.get("HARNESS_COMMAND") or shlex.join(["harness", *sys.argv[1:]])
    return re.sub(r"(://[^/:@\s]+):[^@\s]*@", r"\1@", typed)
