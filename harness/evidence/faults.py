"""What can be wrong with the record of a run. A fault names run, field or file, and both values."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.evidence.facts import DIFF
from harness.evidence.manifest import STUDY, WEIGHTS
from harness.evidence.schema import FILE, TAG, TRIAL, absent, canonical, digests_of, score_as_json, series_digest, sha256_of
from harness.references import FILE as COMPONENTS
from harness.tracking import Inspected, Inspection, params_of


@dataclass
class Found:
    """The faults found so far, in words, and how much was held.

    Attributes:
        lines: the faults.
        files: the number of files whose bytes were read.
        scores: the number of scores that were compared.
        elsewhere: what is not on this machine, which is no fault: it may be on the one that made it.
    """

    lines: list[str] = field(default_factory=list)
    files: int = 0
    scores: int = 0
    elsewhere: list[str] = field(default_factory=list)

    def add(self, name: str, run: str, what: str) -> None:
        """Add a fault of a run, which people call by `name`."""
        self.lines.append(f"{name} (run {run}): {what}")


def manifest_of(folder: Path) -> dict[str, Any] | None:
    """Return the manifest in a folder; None if there is none, empty if it cannot be read."""
    try:
        loaded = json.loads((folder / FILE).read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _no_number(text: str) -> None:
    """Raise an error for NaN and Infinity, which no manifest is written with."""
    raise ValueError(f"{text} is no JSON")


def within(values: object, name: str) -> Mapping[str, Any]:
    """Return a mapping in a part of a manifest; empty if there is none, which is a fault that others name."""
    inner = values.get(name) if isinstance(values, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def run_faults(found: Found, run: Inspected, folder: Path, attribute: str | None, store: Inspection) -> None:
    """Add what is wrong with a finished run.

    Args:
        found: the faults.
        run: the run.
        folder: of its files.
        attribute: the digest of its manifest in the trial store; None if it has none there.
        store: the open tracking store.
    """
    manifest = manifest_of(folder)
    for what in _digest_faults(run.tags.get(TAG), attribute, folder, manifest):
        found.add(run.name, run.run, what)
    for name in absent(manifest, TRIAL) if manifest else ():
        found.add(run.name, run.run, f"{FILE}: the field {name} is missing")
    if not manifest:
        return
    lineage, results, spec = (within(manifest, group) for group in ("lineage", "results", "spec"))
    kept = within(lineage, "files")
    for what in file_faults(found, kept, folder):
        found.add(run.name, run.run, what)
    inner = (
        ("code.diff_sha256", within(manifest, "code").get("diff_sha256"), kept.get(DIFF)),
        ("code.components", within(manifest, "code").get("components"), kept.get(COMPONENTS)),
        ("study.sha256", within(manifest, "study").get("sha256"), kept.get(STUDY)),
        ("lineage.weights_sha256", lineage.get("weights_sha256"), kept.get(WEIGHTS)),
        ("lineage.run", lineage.get("run"), run.run),
        ("spec.sha256", spec.get("sha256"), sha256_of(canonical(spec.get("resolved", {})))),
        ("results.sha256", results.get("sha256"), sha256_of(canonical(results.get("metrics", {})))),
    )
    for name, said, actual in inner:
        if said is not None and actual is not None and said != actual:
            found.add(run.name, run.run, f"{FILE}: {name} is {said}, but what it is of has {actual}")
    for what in _differing("tag", within(lineage, "tags"), run.tags):
        found.add(run.name, run.run, what)
    wanted = params_of(within(spec, "resolved"), str(spec.get("id")), str(within(lineage, "tags").get("arm")))
    for what in _differing("parameter", wanted, run.params, exactly=True):
        found.add(run.name, run.run, what)
    for what in _score_faults(found, run, results, store):
        found.add(run.name, run.run, what)


def _digest_faults(tag: str | None, attribute: str | None, folder: Path, manifest: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what is wrong with a manifest as a whole: its digest stands in both stores, and is that of the file."""
    if manifest is None:
        yield f"{FILE} is missing"
    elif not manifest:
        yield f"{FILE} cannot be read"
    actual = sha256_of(folder / FILE) if manifest is not None else None
    for where, kept in ((f"the tag {TAG}", tag), ("the trial store", attribute)):
        if kept is None:
            yield f"{where} has no digest of {FILE}"
        elif actual is not None and kept != actual:
            yield f"{FILE}: sha256 in {where} {kept}, found {actual}"


def file_faults(found: Found, kept: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Yield the files of a folder that are missing, changed, or not in its manifest."""
    actual = digests_of(folder)
    found.files += len(actual)
    for name, digest in kept.items():
        if name not in actual:
            yield f"file {name} is missing"
        elif actual[name] != digest:
            yield f"file {name}: sha256 kept {digest}, found {actual[name]}"
    yield from (f"file {name} is not in {FILE}" for name in sorted(actual.keys() - kept.keys()))


def _differing(kind: str, kept: Mapping[str, str], actual: Mapping[str, str], *, exactly: bool = False) -> Iterator[str]:
    """Yield the tags or parameters that are not as they were kept; further ones too, if they have to be `exactly` these."""
    for name, value in kept.items():
        if actual.get(name) != value:
            yield f"{kind} {name}: kept {value!r}, found {actual.get(name)!r}"
    yield from (f"{kind} {name} was not kept: {actual[name]!r}" for name in sorted(actual.keys() - kept.keys()) if exactly)


def _score_faults(found: Found, run: Inspected, results: Mapping[str, Any], store: Inspection) -> Iterator[str]:
    """Yield the scores that are not as they were kept, in the last values and in the history."""
    kept, actual = within(results, "metrics"), run.record.metrics
    found.scores += len(actual)
    for key, value in kept.items():
        if key not in actual:
            yield f"metric {key}: kept {value}, found none"
        elif score_as_json(actual[key]) != value:
            yield f"metric {key}: kept {value}, found {actual[key]}"
    yield from (f"metric {key} was not kept: {actual[key]}" for key in sorted(actual.keys() - kept.keys()))
    again = results.get("trained_again")
    again = again if isinstance(again, list) else []
    for key, digest in within(results, "history").items():
        history = store.history(run.run, key)
        first = {step: values[0] for step, values in history.items() if step not in again}
        if series_digest(first) != digest or any(len(values) > 1 for values in history.values()):
            yield f"metric {key}: its values by epoch are not those that were kept"
