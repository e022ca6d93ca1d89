"""Runs that MLflow's database has lost, made again from the manifests and the files that they left."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.evidence.faults import Found, file_faults, manifest_of, within
from harness.evidence.schema import FILE, HISTORY, TAG, sha256_of
from harness.scores import diverged
from harness.tracking import LostRun, MlflowTracker, enter, files_of_lost


def rebuild(tracker: MlflowTracker, manifests: Mapping[str, str]) -> int:
    """Enter runs again that the tracking store has never heard of, and return their number.

    A run comes back, under its id, only if its files are on this machine and are those that were kept: the digest of its manifest
    stands in the trial store, those of all other files in the manifest. What was deleted in MLflow stays deleted.

    Args:
        tracker: of the study.
        manifests: the digest of the manifest of each run, by its id, from the trial store.
    """
    entered = 0
    for name, digest in manifests.items():
        folder = files_of_lost(tracker, name)
        lost = _kept_in(folder, name, digest) if folder else None
        if lost:
            enter(tracker, lost)
            entered += 1
    return entered


def _kept_in(folder: Path, name: str, digest: str) -> LostRun | None:
    """Return the run of a folder; None if what is there is not all that was kept."""
    manifest = manifest_of(folder)
    if not manifest or sha256_of(folder / FILE) != digest or not (folder / HISTORY).is_file():
        return None
    lineage, results, time = (within(manifest, group) for group in ("lineage", "results", "time"))
    if lineage.get("run") != name or any(file_faults(Found(), within(lineage, "files"), folder)):
        return None
    spec = within(within(manifest, "spec"), "resolved")
    metrics = {key: float(value) for key, value in within(results, "metrics").items()}
    history, finding = json.loads((folder / HISTORY).read_text(encoding="utf-8")), diverged(metrics)
    return LostRun(
        run=name,
        spec=spec,
        spec_id=str(within(manifest, "spec").get("id")),
        tags={**within(lineage, "tags"), TAG: digest, **({"finding.diverged": finding} if finding else {})},
        points=list(_points(history, metrics)),
        scores={key: value for key, value in metrics.items() if key not in history},
        begun=_milliseconds(time["begun"]),
        ended=_milliseconds(time["ended"]),
    )


def _points(history: Mapping[str, Mapping[str, Any]], metrics: Mapping[str, float]) -> Iterator[tuple[int, str, float]]:
    """Yield epoch, key and value of every epoch; of the last one the value that stands in the manifest."""
    for key, values in history.items():
        known = {int(epoch): float(value) for epoch, value in values.items()}
        for epoch, value in (known | ({max(known): metrics[key]} if known and key in metrics else {})).items():
            yield epoch, key, value


def _milliseconds(utc: str) -> int:
    """Return a time as MLflow keeps it."""
    return int(datetime.fromisoformat(utc).timestamp() * 1000)
