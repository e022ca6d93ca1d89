"""Plant known faults, one at a time, into a copy of the tree and show which test notices each.

Each patch beside this file is a unified diff under one line: what is wrong, `; noticed by `, and the tests that must notice, which
may be a file, a test or a test with parameters. `make plant` runs this; docs for writing one are in CONTRIBUTING.md.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
NOT_COPIED = {".git", ".venv", "data", "mlruns", "build"}  # of the project's folder
NOWHERE_COPIED = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"}
BY = "; noticed by "
TESTS_FAILED = 1  # pytest's exit code for it; others mean that it could not run them


class StaleError(Exception):
    """Raised when a patch does not fit the tree any more, or is not written as one."""


@dataclass(frozen=True)
class Hunk:
    """A change of a file: the text that is there once, and what takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Fault:
    """A planted fault.

    Attributes:
        name: of the patch, without its ending.
        wrong: what is wrong, in words.
        tests: the tests of which at least one must fail.
        hunks: the changes that plant it.
    """

    name: str
    wrong: str
    tests: tuple[str, ...]
    hunks: tuple[Hunk, ...]


def faults() -> list[Fault]:
    """Return all planted faults, by number."""
    return [read(path) for path in sorted(HERE.glob("*.patch"))]


def read(path: Path) -> Fault:
    """Return the fault that a patch plants.

    Raises:
        StaleError: its first line does not say what is wrong and what notices, or it changes nothing.
    """
    head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    wrong, by, tests = head.strip().partition(BY)
    hunks: list[Hunk] = []
    file = ""
    for line in lines:
        if line.startswith("+++ "):
            file = line[4:].strip().removeprefix("b/")
        elif line.startswith("@@"):
            hunks.append(Hunk(file, "", ""))
        elif hunks and line[0] in " -+" and not line.startswith("--- "):
            last = hunks[-1]
            hunks[-1] = Hunk(last.file, last.old + line[1:] * (line[0] != "+"), last.new + line[1:] * (line[0] != "-"))
    if not by or not hunks or any(h.old == h.new for h in hunks):
        raise StaleError(f"{path.name} must be a line 'what is wrong{BY}tests ...' and then a unified diff")
    return Fault(path.stem, wrong, tuple(tests.split()), tuple(hunks))


def planted(fault: Fault, tree: Path) -> dict[Path, str]:
    """Return the content of each file of a tree that a fault changes, with the fault in it. Lines are found by content, not number.

    Raises:
        StaleError: the text that it replaces is not in its file, or more than once.
    """
    changed: dict[Path, str] = {}
    for hunk in fault.hunks:
        path = tree / hunk.file
        text = changed.get(path) or path.read_text(encoding="utf-8")
        if text.count(hunk.old) != 1:
            raise StaleError(
                f"{fault.name}: the lines that it changes are {text.count(hunk.old)} times in {hunk.file}:\n{hunk.old}"
            )
        changed[path] = text.replace(hunk.old, hunk.new)
    return changed


@contextmanager
def in_tree(fault: Fault, tree: Path) -> Iterator[None]:
    """Have a fault in a tree for the duration of a with block."""
    changed = planted(fault, tree)
    before = {path: path.read_text(encoding="utf-8") for path in changed}
    try:
        for path, text in changed.items():
            path.write_text(text, encoding="utf-8")
        yield
    finally:
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")


def run(tests: Sequence[str], tree: Path, seconds: float, *options: str) -> tuple[int, list[str], str]:
    """Run tests in a tree. Return pytest's exit code, the ids of the tests that failed, and the end of what it said."""
    env = os.environ | {
        "PYTHONPATH": str(tree),
        "HARNESS_DATA": os.environ.get("HARNESS_DATA") or str(PROJECT / "data"),
        "PYTHONDONTWRITEBYTECODE": "1",  # a patch may leave a file's size and second as they are, which is all that a .pyc knows
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=line", "-p", "no:cacheprovider", *options, *tests]
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return -1, [], f"nothing within {seconds:g} s"
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+?::.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return done.returncode, failed, "\n".join((done.stdout + done.stderr).splitlines()[-6:])


def verdict(fault: Fault, tree: Path, seconds: float) -> tuple[bool, str]:
    """Return whether the named tests notice a fault in this tree, and by which or why not."""
    try:
        with in_tree(fault, tree):
            code, failed, said = run(fault.tests, tree, seconds, "-x")
    except (StaleError, OSError) as stale:
        return False, f"DOES NOT APPLY: {stale}"
    if code == TESTS_FAILED and failed:
        return True, f"noticed by {failed[0]}"
    return False, f"NOT NOTICED by {' '.join(fault.tests)}: pytest exited with {code}\n{said}"


def chosen(names: Sequence[str]) -> list[Fault]:
    """Return the faults whose names have one of these words in them, or all."""
    return [f for f in faults() if not names or any(word in f.name for word in names)]


def left_out(folder: str, names: Sequence[str]) -> set[str]:
    """Return which of these names in a folder are not copied."""
    return NOWHERE_COPIED | (NOT_COPIED if Path(folder) == PROJECT else set())


def main() -> int:
    """Plant the faults that were asked for. Return 0 if each is noticed and the tests pass without any, else 1."""
    parser = argparse.ArgumentParser(description="plant faults and show which tests notice them")
    parser.add_argument("names", nargs="*", help="words in the names of patches; all of them by default")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree to work in at a time")
    parser.add_argument("--seconds", type=float, default=300, help="the most that the tests of a fault may take")
    options = parser.parse_args()
    started = time.monotonic()
    found = chosen(options.names)
    if not found:
        print(f"no patch has {' or '.join(options.names)} in its name; there are: {', '.join(f.name for f in faults())}")
        return 1
    with TemporaryDirectory(prefix="planted-") as scratch, ThreadPoolExecutor(options.jobs) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for job in range(options.jobs):
            tree = Path(scratch) / str(job)
            shutil.copytree(PROJECT, tree, ignore=left_out, symlinks=True)
            trees.put(tree)

        def noticed(fault: Fault) -> bool:
            tree, begun = trees.get(), time.monotonic()
            try:
                good, words = verdict(fault, tree, options.seconds)
            finally:
                trees.put(tree)
            print(f"{fault.name}: {words} ({time.monotonic() - begun:.0f} s)", flush=True)
            return good

        def sound(tests: Sequence[str]) -> bool:
            tree = trees.get()
            try:
                code, failed, said = run(tests, tree, options.seconds * len(found))
            finally:
                trees.put(tree)
            if code:
                print(f"without any fault: pytest exited with {code}; failed: {', '.join(failed) or 'none'}\n{said}", flush=True)
            return code == 0

        named = sorted({test for fault in found for test in fault.tests})
        if not all(list(pool.map(sound, [part for job in range(options.jobs) if (part := named[job :: options.jobs])]))):
            return 1
        print(f"without any fault the {len(named)} named tests pass; planting {len(found)} faults", flush=True)
        results = list(pool.map(noticed, found))
    print(f"{sum(results)} of {len(results)} faults noticed, in {(time.monotonic() - started) / 60:.1f} min")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
