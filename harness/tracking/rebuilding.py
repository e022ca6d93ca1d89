"""Finished runs that MLflow's database has lost, entered again under their own ids."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from harness.errors import MachineError
from harness.figures.schedule import FOLDER as IMAGES
from harness.stores import addresses
from harness.stores.files import SQLITE_PATIENCE_S
from harness.tracking import library
from harness.tracking.description import NOTE, figures_among, trial_note
from harness.tracking.layout import NOT_SUPERSEDED, SUPERSEDED
from harness.tracking.parent import MOST_POINTS
from harness.tracking.runs import WITH_IMAGES, MlflowTracker, params_of

BEGUN = "SCHEDULED"  # the state of a run that is being entered, and of no other of ours: after a kill the next start goes on


@dataclass(frozen=True, kw_only=True)
class LostRun:
    """A finished run as its files tell of it.

    Attributes:
        run: its id.
        spec: the fields of its spec, as JSON values.
        spec_id: the id of the spec.
        tags: its tags.
        points: epoch, key and value of the metrics of its epochs.
        scores: the metrics of its end by key.
        begun: when it was begun, in ms since 1970.
        ended: when it was finished, likewise.
    """

    run: str
    spec: Mapping[str, Any]
    spec_id: str
    tags: Mapping[str, str]
    points: Sequence[tuple[int, str, float]]
    scores: Mapping[str, float]
    begun: int
    ended: int


def files_of_lost(tracker: MlflowTracker, run: str) -> Path | None:
    """Return the folder with the files of a run that the store has no record of, or only a part.

    None if the store knows the run, one that was deleted in MLflow too, if its files are not on this machine, or if the store is no
    SQLite file, for MLflow's own interface would give the run another id.
    """
    if addresses.sqlite_path(library.mlflow().get_tracking_uri()) is None:
        return None
    address = urlparse(tracker.client.get_experiment(tracker.experiment_id).artifact_location)
    folder = Path(unquote(address.path)) / run / "artifacts"
    if address.scheme not in ("", "file") or not folder.is_dir():
        return None
    try:
        known = tracker.client.get_run(run).info.status != BEGUN
    except library.failures() as fault:
        if not library.is_missing(fault):
            raise
        known = False
    return None if known else folder


def enter(tracker: MlflowTracker, lost: LostRun) -> None:
    """Enter a run that `files_of_lost` has found; that it is marked as FINISHED is the commit.

    Points are given times spread evenly over the run's, as those of its epochs nearly were, and scores that of its end.

    Raises:
        MachineError: the database cannot be written to.
    """
    client, entities = tracker.client, library.mlflow().entities
    _insert(client.get_experiment(tracker.experiment_id), lost)
    tags = {
        **lost.tags,
        "mlflow.runName": f"{lost.tags['arm']} / seed {lost.tags['seed']}",
        SUPERSEDED: NOT_SUPERSEDED,
        **tracker.shown(lost.tags["arm"]),
    }
    files = Path(unquote(urlparse(client.get_run(lost.run).info.artifact_uri).path))
    if (files / IMAGES).is_dir():
        tags[WITH_IMAGES] = "True"
    finding = lost.tags.get("finding.diverged", "")
    tags[NOTE] = trial_note(lost.run, tracker.scores, lost.scores, figures_among(files), finding)
    params = params_of(lost.spec, lost.spec_id, lost.tags["arm"])
    client.log_batch(
        lost.run,
        params=[entities.Param(k, v) for k, v in params.items()],
        tags=[entities.RunTag(k, v) for k, v in tags.items()],
    )
    client.log_inputs(lost.run, [library.dataset_input(lost.spec["dataset"], lost.tags["dataset.digest"])])
    last, took = max((epoch for epoch, *_ in lost.points), default=0), lost.ended - lost.begun
    points = [entities.Metric(key, value, lost.begun + took * epoch // (last + 1), epoch) for epoch, key, value in lost.points]
    points += [entities.Metric(key, value, lost.ended, int(lost.spec["epochs"])) for key, value in lost.scores.items()]
    for first in range(0, len(points), MOST_POINTS):
        client.log_batch(lost.run, metrics=points[first : first + MOST_POINTS])
    client.set_terminated(lost.run, "FINISHED", end_time=max(lost.begun, lost.ended))


def _insert(experiment: Any, lost: LostRun) -> None:
    """Write the row of a run, unless an earlier start, which was killed, has done so."""
    row = {
        "run_uuid": lost.run,
        "name": f"{lost.tags['arm']} / seed {lost.tags['seed']}",
        "source_type": "UNKNOWN",
        "source_name": "",
        "entry_point_name": "",
        "source_version": "",
        "user_id": "unknown",
        "status": BEGUN,
        "start_time": lost.begun,
        "lifecycle_stage": "active",
        "artifact_uri": f"{experiment.artifact_location}/{lost.run}/artifacts",
        "experiment_id": int(experiment.experiment_id),
    }
    statement = f"INSERT OR IGNORE INTO runs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
    database = addresses.sqlite_path(library.mlflow().get_tracking_uri())
    try:
        with closing(sqlite3.connect(str(database), timeout=SQLITE_PATIENCE_S)) as connection, connection:
            connection.execute(statement, [*row.values()])
    except sqlite3.OperationalError as fault:
        raise MachineError(f"cannot write to {database}: {fault}") from fault
