"""What a driver knows of its code, its environment and its data, gathered once per process. Torch is not imported here."""

import difflib
import platform
import sqlite3
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import catalog, paths, provenance, references
from harness.evidence.schema import canonical, sha256_of

if TYPE_CHECKING:
    from harness.data import Data, Split

DIFF = "code.diff"  # the file that holds what the commit does not
MOST_FILES = 16  # of the user's own whose digests stand in each manifest
PACKAGED = "package:"  # begins the name of a raw file that an installed package brings


@cache
def uncommitted() -> str:
    """Return, as a patch that `git apply` takes, what the clone's Python sources have beyond its commit; empty outside a clone.

    Tracked files are there as `git diff HEAD` shows them, and untracked `.py` files as new ones.
    """
    if provenance.commit() == "unknown":
        return ""
    new = [paths.PROJECT / name for name in untracked()]
    return provenance.difference() + "".join(_as_new(f.relative_to(paths.PROJECT).as_posix(), f.read_text("utf-8")) for f in new)


@cache
def untracked() -> tuple[str, ...]:
    """Return the paths in the clone of the `.py` files that git neither tracks nor ignores."""
    return provenance.untracked(".py")


def _as_new(name: str, text: str) -> str:
    r"""Return a patch that makes a file of this text.

    >>> print(_as_new("a.py", "x = 1"), end="")
    diff --git a/a.py b/a.py
    new file mode 100644
    --- /dev/null
    +++ b/a.py
    @@ -0,0 +1 @@
    +x = 1
    \ No newline at end of file
    """
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n"
    lines = list(difflib.unified_diff([], text.splitlines(keepends=True), "/dev/null", f"b/{name}", n=0))
    body = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return head + body.replace("--- /dev/null\t\n", "--- /dev/null\n")


@cache
def code() -> Mapping[str, Any]:
    """Return the group `code` of every manifest of this process."""
    head, _, dirty = provenance.commit().partition("+")
    return {
        "commit": head if head != "unknown" else "unknown: this harness is in no clone of its repository",
        "branch": provenance.branch() or "unknown: no clone, or no branch is checked out",
        "dirty": bool(dirty),
        "diff_sha256": sha256_of(uncommitted()) if uncommitted() else "none: the commit is the whole code, or there is no clone",
        "untracked": list(untracked()),
        "digest": provenance.digest(),
        "version": provenance.version("vae-harness"),
        "command": provenance.command(),
    }


@cache
def environment() -> Mapping[str, Any]:
    """Return what is installed here: versions by package, their digest, that of the lock file, and SQLite's version."""
    packages = sorted({f"{d.name}=={d.version}" for d in metadata.distributions()})
    lock = paths.PROJECT / "locks" / "harness.txt"
    return {
        "packages": packages,
        "packages_sha256": sha256_of("\n".join(packages)),
        "lock_sha256": sha256_of(lock) if paths.in_clone() and lock.is_file() else "none: this harness is in no clone",
        "sqlite": sqlite3.sqlite_version,
        "driver": {"python": platform.python_version(), "host": platform.node(), "torch": provenance.version("torch")},
    }


def data(dataset: "Data", name: str, classifier: str) -> dict[str, Any]:
    """Return the group `data`: of a data set, the name by which the spec calls it, and the name of its feature network."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {
        "name": name,
        "digest": dataset.digest,
        "files": {file: sha256_of(path) for file, path in raw_files(name).items()}
        or "not listed: many pictures, or what a function made; the digests of the splits cover them",
        "counts": {part: len(split) for part, split in splits.items()},
        "splits": {part: split_digest(split) for part, split in splits.items()},
        "classifier": classifier or "none: the images are too few",
    }


def split_digest(split: "Split") -> str:
    """Return the sha256 of the bytes of a split's images, then of its labels."""
    content = split.levels.contiguous().numpy().tobytes()
    return sha256_of(content if split.labels is None else content + split.labels.contiguous().numpy().tobytes())


def raw_files(name: str) -> dict[str, Path]:
    """Return the raw files of a data set by their names in a manifest.

    Those of the catalog's are paths in the data folder, those of the user's own absolute ones, unless more than `MOST_FILES`.
    """
    if references.is_file(name):
        own = references.files_of(name.partition(":")[0], references.find_file(name))
        return {path.as_posix(): path for path in own.values()} if len(own) <= MOST_FILES else {}
    known = catalog.DATASETS.get(name)
    if known is None:
        return {}
    if folder := known.fixed.get("folder"):
        from harness.data.published import DIGESTS, folder_of

        found = [folder_of(folder) / file for file in sorted(DIGESTS[folder])]
        return {file.relative_to(paths.data()).as_posix(): file for file in found if file.exists()}
    packaged = [f"{PACKAGED}{known.packaged}"] if known.packaged else []
    return {name: file for name in packaged if (file := located(name)).exists()}


def located(name: str) -> Path:
    """Return the path on this machine of a raw file by its name in a manifest."""
    if not name.startswith(PACKAGED):
        return paths.data() / name
    return paths.packaged(name.removeprefix(PACKAGED))


def resolved(spec: Mapping[str, Any], trial: str) -> dict[str, Any]:
    """Return the group `spec`, of the fields of a spec as JSON values and its id."""
    return {"id": trial, "sha256": sha256_of(canonical(spec)), "resolved": dict(spec)}
