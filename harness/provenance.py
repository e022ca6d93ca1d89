"""The origin of a run, as it is recorded with it: code, versions, machine and command."""

import hashlib
import os
import platform
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from harness import paths

RECORD_SCHEMA = "1"
CODE = (".py", ".cpp", ".h", ".json", ".html", ".css", ".pt")  # kinds of files that the digest of the package is taken over


def _git(*arguments: str) -> str | None:
    """Return what `git` prints in the clone; None if there is no clone or no git, or the command fails."""
    git = shutil.which("git")
    if git is None or not paths.in_clone():
        return None
    asked = [git, "-C", str(paths.PROJECT), *arguments]
    completed = subprocess.run(asked, capture_output=True, encoding="utf-8", errors="replace", check=False)
    return completed.stdout.strip("\n") if completed.returncode == 0 else None  # the last line of a patch may begin with a space


def now() -> str:
    """Return the time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@cache
def commit() -> str:
    """Return the clone's commit, 12 digits, with `+dirty` if tracked files differ from it; `unknown` outside a repository.

    A repository that merely holds the package, as that of a user whose environment lies in it, is not asked.
    """
    top = _git("rev-parse", "--show-toplevel")
    head = _git("rev-parse", "--short=12", "HEAD")
    if not top or head is None or Path(top).resolve() != paths.PROJECT:
        return "unknown"
    return head + ("+dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


@cache
def digest() -> str:
    """Return the first 12 digits of a sha256 over the package's own files.

    The shipped studies are left out: they lie elsewhere in a clone, and a trial's own specification is what counts.
    """
    content = hashlib.sha256()
    for file in sorted(f for f in paths.PACKAGE.rglob("*") if f.suffix in CODE):
        name = file.relative_to(paths.PACKAGE).as_posix()
        if not name.startswith("studies/"):
            content.update(f"{name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()[:12]


@cache
def code() -> str:
    """Return a text that is equal for equal code.

    In a clone it is the commit and, if tracked files differ from it, a digest of the difference; elsewhere it is the version and
    the digest of the package.
    """
    head, _, dirty = commit().partition("+")
    if head == "unknown":
        return f"{version('vae-harness')}+{digest()}"
    return f"{head}+{hashlib.sha256(difference().encode()).hexdigest()[:12]}" if dirty else head


def difference() -> str:
    """Return what tracked files of the clone have beyond its commit, as a patch; empty if nothing, or outside a repository."""
    patch = _git("diff", "--no-color", "--no-ext-diff", "--binary", "HEAD")
    return f"{patch}\n" if patch else ""


def branch() -> str:
    """Return the branch that the clone is on; empty if there is none."""
    return _git("branch", "--show-current") or "" if commit() != "unknown" else ""


def untracked(suffix: str) -> tuple[str, ...]:
    """Return the paths in the clone of the files of this kind that git neither tracks nor ignores, sorted."""
    listed = _git("ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--", f"*{suffix}") or ""
    return tuple(sorted(filter(None, listed.split("\0")))) if commit() != "unknown" else ()


def version(package: str) -> str:
    """Return the version of an installed package, or `absent`: benchmarks run from a checkout, without some or even the harness."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def tags() -> dict[str, str]:
    """Return the tags that every run has: code, versions, host and schema of the record. None of them needs torch.

    Those of git are there in a clone only.
    """
    head, _, dirty = commit().partition("+")
    git = {} if head == "unknown" else {"git.commit": head, "git.dirty": str(bool(dirty)).lower()}
    return git | {
        "digest.harness": digest(),
        "version.harness": version("vae-harness"),
        "version.python": platform.python_version(),
        "version.torch": version("torch"),
        "version.optuna": version("optuna"),
        "version.mlflow": version("mlflow"),
        "host": socket.gethostname(),
        "harness.schema": RECORD_SCHEMA,
    }


def code_of(tags: Mapping[str, str]) -> str:
    """Return the code that a run's tags name: its commit, with `+dirty` if files differed from it, or else version and digest.

    >>> code_of({"git.commit": "3567c8f00000", "git.dirty": "true"}), code_of({"version.harness": "0.1.0", "digest.harness": "ab"})
    ('3567c8f00000+dirty', '0.1.0+ab')
    """
    if "git.commit" in tags:
        return tags["git.commit"] + ("+dirty" if tags.get("git.dirty") == "true" else "")
    if "digest.harness" in tags:
        return f"{tags['version.harness']}+{tags['digest.harness']}"
    return "unknown"


def command() -> str:
    """Return the command as the user typed it, with passwords in URIs left out.

    It is `$HARNESS_COMMAND`, which make sets, or else this process's own arguments.
    """
    return redacted(os.environ.get("HARNESS_COMMAND") or shlex.join(["harness", *sys.argv[1:]]))


def redacted(text: str) -> str:
    """Return a text without the passwords of the URIs in it.

    >>> redacted("--storage postgresql://me:secret@host/db")
    '--storage postgresql://me@host/db'
    """
    return re.sub(r"(://[^/:@\s]+):[^@\s]*@", r"\1@", text)
