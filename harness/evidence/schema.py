"""The form of a manifest: its fields by group, its canonical text, and digests."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.scores import COST, SCORES, row_of
from harness.tracking import MANIFEST as FILE
from harness.tracking import MANIFEST_TAG as TAG

__all__ = [
    "FILE",
    "HISTORY",
    "MADE_OF",
    "TAG",
    "absent",
    "canonical",
    "digests_of",
    "is_cost",
    "score_as_json",
    "series_digest",
    "sha256_of",
]

SCHEMA = 1
HISTORY = "history.json"  # the file of a trial's run with the metrics of all epochs, which MLflow's database has too

# What every manifest of a trial has, by group. A field that cannot be known says why; it is never left out.
TRIAL: Mapping[str, tuple[str, ...]] = {
    "code": ("commit", "branch", "dirty", "diff_sha256", "untracked", "digest", "version", "command"),
    "study": ("name", "budget", "reference", "path", "sha256"),
    "spec": ("id", "sha256", "resolved"),
    "environment": (
        "python",
        "os",
        "kernel",
        "packages",
        "packages_sha256",
        "lock_sha256",
        "torch",
        "torch_build",
        "sqlite",
        "variables",
    ),
    "hardware": ("host", "cpu", "capability", "cores", "ram_bytes", "gpu"),
    "randomness": ("root", "seeds", "flags", "global_state"),
    "data": ("name", "digest", "files", "counts", "splits", "classifier"),
    "time": ("begun", "ended", "seconds", "clock", "train_s", "evaluate_s", "resumes", "gaps_s"),
    "execution": ("executor", "stints", "evaluation"),
    "results": ("metrics", "sha256", "history", "trained_again"),
    "lineage": ("trial", "part", "attempt", "run", "store", "tags", "checkpoint", "weights_sha256", "files"),
    "plan": ("sha256",),
}
# Of every stint, and of every evaluation, in the group `execution`.
STINT = (
    *("device", "on", "host", "threads", "capability", "execution", "lanes", "from_epoch", "begun", "before"),
    *("to_epoch", "compiled", "ended", "after"),
)
EVALUATION = ("device", "threads", "begun", "ended", "seconds")
# Of the manifest of a report, in the parent run.
REPORT: Mapping[str, tuple[str, ...]] = {
    "report": ("study", "budget", "written", "command", "code", "files", "runs", "plan", "note_sha256", "winner")
}
MADE_OF = "report.made_of"  # the tag of the parent run that says what its report was made of; the page says the same


def canonical(values: Mapping[str, Any]) -> str:
    """Return a mapping as JSON of one form only: keys sorted, no spaces, no number that JSON has no word for.

    Raises:
        ValueError: a number is not finite.

    >>> canonical({"b": 1, "a": [0.1, "x"]})
    '{"a":[0.1,"x"],"b":1}'
    """
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def score_as_json(value: float) -> float | str:
    """Return a score as a JSON value: in words if it is not finite.

    >>> score_as_json(0.5), score_as_json(float("nan"))
    (0.5, 'nan')
    """
    return value if math.isfinite(value) else repr(value)


def is_cost(key: str) -> bool:
    """Return whether a metric is a time, a speed or a size of memory, which no two trainings have alike."""
    row = row_of(key, SCORES)
    return row is not None and row.group == COST


def series_digest(values: Mapping[int, float]) -> str:
    """Return the sha256 of the values of a metric by epoch."""
    return sha256_of(canonical({str(epoch): score_as_json(value) for epoch, value in values.items()}))


def sha256_of(content: bytes | str | Path) -> str:
    """Return the sha256 of bytes, of a text in UTF-8, or of a file, in hex digits."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def digests_of(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder but its manifest, by path in the folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): sha256_of(p) for p in files if p != folder / FILE}


def absent(manifest: Mapping[str, Any], groups: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Yield the name of every field that a manifest lacks, as `group.field`."""
    if "schema" not in manifest:
        yield "schema"
    for group, names in groups.items():
        values = manifest.get(group)
        if not isinstance(values, Mapping):
            yield group
            continue
        yield from (f"{group}.{name}" for name in names if values.get(name) in (None, ""))
    execution = manifest.get("execution") if "execution" in groups else None
    if isinstance(execution, Mapping) and isinstance(execution.get("stints"), list):
        for i, stint in enumerate(execution["stints"]):
            kept = stint if isinstance(stint, Mapping) else {}
            yield from (f"execution.stints.{i}.{name}" for name in STINT if name not in kept)
        evaluation = execution.get("evaluation")
        if isinstance(evaluation, Mapping):
            yield from (f"execution.evaluation.{name}" for name in EVALUATION if name not in evaluation)
