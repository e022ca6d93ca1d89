"""All trials' runs on record, read fast: of a SQLite file by SQL, which does without the seconds that MLflow takes to import.

Nothing is written and no lock is taken, so that this may be called beside a driver.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import MachineError
from harness.stores import addresses
from harness.stores.files import SQLITE_PATIENCE_S
from harness.tracking import library
from harness.tracking.layout import NOT_SUPERSEDED, SUPERSEDED
from harness.tracking.reading import experiments, readable
from harness.tracking.store import OLDEST_FIRST, experiment_name, search_all, store_uri

RUNS = """
SELECT run_uuid, status, start_time, end_time FROM runs JOIN experiments USING (experiment_id)
WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active' AND (? = '' OR experiments.name = ?)
ORDER BY start_time"""
OF_RUNS = "SELECT run_uuid, {} FROM {} WHERE run_uuid IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True, kw_only=True)
class RunOnRecord:
    """A run of a trial.

    Attributes:
        run: its id.
        status: its status, in MLflow's words.
        begun, ended: milliseconds since 1970; None if it has not ended.
        tags: its tags.
        metrics: the last value of each metric.
    """

    run: str
    status: str
    begun: int
    ended: int | None
    tags: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def pruned(self) -> bool:
        """Whether a search ended its trial early."""
        return "pruned" in self.tags

    @property
    def seconds(self) -> float | None:
        """How long it took; None if it has not ended."""
        return None if self.ended is None else (self.ended - self.begun) / 1000


def runs_on_record(study: str = "", budget: str = "default") -> list[RunOnRecord]:
    """Return the newest run of every trial, of a study and budget or of all, in the order in which they were begun.

    Those of an older plan of a study are left out, and so are deleted ones.

    Raises:
        MachineError: the tracking store cannot be read.
    """
    path, name = addresses.sqlite_path(store_uri()), experiment_name(study, budget) if study else ""
    found = _of_server(name) if path is None else _of_file(path, name) if path.is_file() else ()
    newest = {(r.tags.get("ledger", ""), r.tags["cell"]): r for r in found if r.tags.get("kind") == "trial" and "cell" in r.tags}
    present = [r for r in newest.values() if r.tags.get(SUPERSEDED, NOT_SUPERSEDED) == NOT_SUPERSEDED]
    return sorted(present, key=lambda r: r.begun)


def _of_file(path: Path, experiment: str) -> Iterator[RunOnRecord]:
    """Yield the runs in a file of MLflow, the oldest first."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=SQLITE_PATIENCE_S)) as store:
            rows = store.execute(RUNS, [experiment, experiment]).fetchall()
            ids = json.dumps([row[0] for row in rows])
            tags: dict[str, dict[str, str]] = {row[0]: {} for row in rows}
            metrics: dict[str, dict[str, float]] = {row[0]: {} for row in rows}
            for run, key, value in store.execute(OF_RUNS.format("key, value", "tags"), [ids]):
                tags[run][key] = value
            for run, key, value, is_nan in store.execute(OF_RUNS.format("key, value, is_nan", "latest_metrics"), [ids]):
                metrics[run][key] = float("nan") if is_nan else value
    except sqlite3.Error as fault:
        raise MachineError(f"cannot read the tracking store {path}\n{fault}") from None
    for run, status, begun, ended in rows:
        yield RunOnRecord(run=run, status=status, begun=begun, ended=ended, tags=tags[run], metrics=metrics[run])


def _of_server(experiment: str) -> Iterator[RunOnRecord]:
    """Yield the runs that a server keeps, the oldest first."""
    wanted = {name for name in experiments() if experiment in ("", name)}
    client = library.client()
    with readable():
        for experiment_id in [e.experiment_id for e in client.search_experiments() if e.name in wanted]:
            for r in search_all(client, experiment_id, "tags.kind = 'trial'", OLDEST_FIRST):
                times = {"begun": r.info.start_time, "ended": r.info.end_time}
                yield RunOnRecord(run=r.info.run_id, status=r.info.status, tags=r.data.tags, metrics=r.data.metrics, **times)
