"""The manifest of a trial and of a report: one JSON file of all that was known when they were made, and of the bytes they left."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import provenance
from harness.evidence import facts
from harness.evidence.schema import (
    FILE,
    HISTORY,
    SCHEMA,
    TAG,
    canonical,
    digests_of,
    is_cost,
    score_as_json,
    series_digest,
    sha256_of,
)
from harness.plans import PLAN_TAG
from harness.provenance import now
from harness.references import FILE as COMPONENTS
from harness.spec import EXECUTION, Result
from harness.study import LoadedStudy
from harness.tracking import SUPERSEDED, Record

if TYPE_CHECKING:
    from harness.data import Data

SPEC, STUDY, WEIGHTS = "spec.json", "study.py", "state_dict.pt"
UNTOLD = "not told by the process that trained"
NO_PLAN = "none: this study has no stored plan"
NO_WINNER = "none: the report names no trial as the best"


class Place(NamedTuple):
    """The place of a run in the trial store: the trial's number, the index of its seed there, and which start of it this is."""

    trial: int
    part: int
    attempt: int


class History(NamedTuple):
    """The rows of all epochs of a trial.

    Attributes:
        rows: the metrics by epoch.
        again: the epochs that were on record already when they were trained again after a stop; the record keeps the first time.
    """

    rows: Mapping[int, Mapping[str, float]]
    again: Sequence[int]

    def digests(self) -> dict[str, str]:
        """Return the digest of the values of every metric but those of cost, which training again would change."""
        points: dict[str, dict[int, float]] = {}
        for epoch, row in self.rows.items():
            for key, value in row.items():
                if epoch not in self.again and not is_cost(key):
                    points.setdefault(key, {})[epoch] = value
        return {key: series_digest(values) for key, values in points.items()}

    def as_text(self) -> str:
        """Return the values of every metric by epoch as JSON, from which a lost run is made again (rebuilding.py)."""
        points: dict[str, dict[str, float | str]] = {}
        for epoch, row in self.rows.items():
            for key, value in row.items():
                points.setdefault(key, {})[str(epoch)] = score_as_json(value)
        return canonical(points) + "\n"


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """When a driver gave a trial to a worker, and the checkpoint that it went on from.

    Attributes:
        utc: the time.
        clock: the seconds of `time.perf_counter`.
        checkpoint: the epoch and the sha256 of the checkpoint; none if the trial began anew.
    """

    utc: str = field(default_factory=now)
    clock: float = field(default_factory=time.perf_counter)
    checkpoint: Mapping[str, Any] | str = "none: trained from the beginning"


@dataclass(frozen=True, kw_only=True)
class Witness:
    """What is equal for all trials of a driver, and the making of their manifests.

    Attributes:
        study: the group `study`.
        source: the content of the study's file; empty if it has none.
        data: the group `data`.
        executor: the name of the executor.
    """

    study: Mapping[str, Any] = field(default_factory=dict)
    source: bytes = b""
    data: Mapping[str, Any] = field(default_factory=dict)
    executor: str = "not told"

    @classmethod
    def of(cls, loaded: LoadedStudy, budget: str, data: "Data", classifier: str, executor: str) -> "Witness":
        """Return the witness of a study's trials; `classifier` is the name of the data's feature network, or empty."""
        study = {
            "name": loaded.name,
            "budget": budget,
            "reference": loaded.reference,
            "path": str(loaded.path),
            "sha256": sha256_of(loaded.source),
        }
        return cls(
            study=study, source=loaded.source, data=facts.data(data, loaded.study.base.dataset, classifier), executor=executor
        )

    def testify(
        self,
        files: Path,
        result: Result,
        recorded: Record,
        beginning: Beginning,
        place: Place,
        history: History,
    ) -> str:
        """Write the manifest of a finished trial, and what else its run must keep, into the folder of its files. Return its sha256.

        Args:
            files: the folder, as the process that trained has left it.
            result: of the trial.
            recorded: its run before the files and the final scores are added: metrics on record stay as they are.
            beginning: when it began.
            place: its place in the trial store.
            history: the rows of its epochs.
        """
        spec = result.spec
        told = _taken(files / EXECUTION)
        (files / SPEC).write_text(json.dumps(spec.as_dict(), indent=2), encoding="utf-8")
        (files / HISTORY).write_text(history.as_text(), encoding="utf-8")
        if self.source:
            (files / STUDY).write_bytes(self.source)
        if facts.uncommitted():
            (files / facts.DIFF).write_text(facts.uncommitted(), encoding="utf-8")
        machine = told.get("machine", {})
        stints = told.get("stints", [])
        metrics = {key: score_as_json(value) for key, value in {**result.metrics, **recorded.metrics}.items()}
        later = (SUPERSEDED, TAG)  # a start that was killed may have set the digest of a manifest that this one takes the place of
        tags = {k: v for k, v in sorted(recorded.tags.items()) if not k.startswith("mlflow.") and k not in later}
        kept = digests_of(files)
        manifest = {
            "schema": SCHEMA,
            "code": {**facts.code(), "components": kept.get(COMPONENTS, "none: no code of the user's own")},
            "study": dict.fromkeys(("name", "budget", "reference", "path", "sha256"), "not told") | dict(self.study),
            "spec": facts.resolved(spec.as_dict(), spec.id),
            "environment": {**facts.environment(), **_of(machine, "python", "os", "kernel", "torch", "torch_build", "variables")},
            "hardware": _of(machine, "host", "cpu", "capability", "cores", "ram_bytes", "gpu"),
            "randomness": {
                "root": spec.seed,
                **_of(told, "seeds", "flags"),
                "global_state": "not used: every draw has a generator of its own, seeded by seed, kind of randomness and epoch",
            },
            "data": dict.fromkeys(("name", "digest", "files", "counts", "splits", "classifier"), "not told") | dict(self.data),
            "time": {
                "begun": beginning.utc,
                "ended": now(),
                "seconds": time.perf_counter() - beginning.clock,
                "clock": "durations by time.perf_counter, which is monotonic; times of day by the system's clock",
                "train_s": told.get("train_s", UNTOLD),
                "evaluate_s": told.get("evaluation", {}).get("seconds", UNTOLD),
                "resumes": max(0, len(stints) - 1),
                "gaps_s": gaps_s(stints),
            },
            "execution": {"executor": self.executor, "stints": stints or UNTOLD, "evaluation": told.get("evaluation", UNTOLD)},
            "results": {
                "metrics": metrics,
                "sha256": sha256_of(canonical(metrics)),
                "history": history.digests(),
                "trained_again": history.again,
            },
            "lineage": {
                **place._asdict(),
                "run": recorded.run,
                "store": tags.get("ledger", "not told"),
                "tags": tags,
                "checkpoint": beginning.checkpoint,
                "weights_sha256": kept.get(WEIGHTS, "none: the trial left no weights"),
                "files": kept,
            },
            "plan": {"sha256": tags.get(PLAN_TAG, NO_PLAN)},
        }
        return _write(files, manifest)


def gaps_s(stints: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the seconds by the system's clock between the stints of a trial.

    >>> gaps_s([{"ended": "2026-11-26T10:00:00+00:00"}, {"begun": "2026-11-26T10:00:02+00:00"}])
    [2.0]
    """
    return [
        (datetime.fromisoformat(after["begun"]) - datetime.fromisoformat(before["ended"])).total_seconds()
        for before, after in pairwise(stints)
    ]


def of_report(
    folder: Path, study: str, budget: str, records: Sequence[Record], *, plan: str = "", note: str = "", winner: str = ""
) -> str:
    """Write the manifest of a report into its folder, and return its sha256.

    Args:
        folder: of the report's files.
        study: its name.
        budget: its name.
        records: the runs that the report was made of.
        plan: the sha256 of the plan that it judges by; empty if there is none.
        note: the text that describes the study in MLflow from now on.
        winner: the id of the spec of the trial that the report names as the best; empty if it names none.
    """
    report = {
        "study": study,
        "budget": budget,
        "written": now(),
        "command": provenance.command(),
        "code": provenance.code(),
        "files": digests_of(folder),
        "runs": {r.run: r.tags.get(TAG, "none: recorded before manifests were kept") for r in records},
        "plan": plan or NO_PLAN,
        "note_sha256": sha256_of(note),
        "winner": winner or NO_WINNER,
    }
    return _write(folder, {"schema": SCHEMA, "report": report})


def _taken(file: Path) -> dict[str, Any]:
    """Return what a worker has told of a trial, and delete the file: the manifest holds it from now on."""
    if not file.is_file():
        return {}
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    return told


def _of(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return some of the values that a worker has told."""
    return {name: values.get(name, UNTOLD) for name in names}


def _write(folder: Path, manifest: Mapping[str, Any]) -> str:
    """Write a manifest into a folder and return its sha256."""
    text = canonical(manifest) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")
    return sha256_of(text)
