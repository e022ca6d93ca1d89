"""Runs on record in MLflow: how they are written, read, arranged and served, and the protocol that a driver needs of a tracker.

In come specs, rows, results and files; out come runs that can be browsed, and the same numbers read back. MLflow is imported on
first use and by this folder alone. Nothing here decides what is run or how it is judged.
"""

from harness.tracking.absent import set_aside
from harness.tracking.beside import beside
from harness.tracking.inspection import Inspected, Inspection, inspection
from harness.tracking.layout import NOT_SUPERSEDED, SUPERSEDED, SUPERSEDED_BY
from harness.tracking.overview import RunOnRecord, runs_on_record
from harness.tracking.parent import TAG_LIMIT
from harness.tracking.protocol import MANIFEST, MANIFEST_TAG, Record, Tracker
from harness.tracking.reading import (
    TrialRun,
    check_anew,
    experiments,
    has_rows,
    is_on_record,
    judged_on_record,
    on_record,
    plan_tags,
    stored_plan,
    trial_run,
    trial_runs,
)
from harness.tracking.rebuilding import LostRun, enter, files_of_lost
from harness.tracking.runs import MlflowTracker, params_of
from harness.tracking.store import (
    MLFLOW_SCHEMA,
    artifact_location,
    check_store,
    ensure_store,
    experiment_name,
    store_uri,
    study_page,
)

__all__ = [
    "MANIFEST",
    "MANIFEST_TAG",
    "MLFLOW_SCHEMA",
    "NOT_SUPERSEDED",
    "SUPERSEDED",
    "SUPERSEDED_BY",
    "TAG_LIMIT",
    "Inspected",
    "Inspection",
    "LostRun",
    "MlflowTracker",
    "Record",
    "RunOnRecord",
    "Tracker",
    "TrialRun",
    "artifact_location",
    "beside",
    "check_anew",
    "check_store",
    "ensure_store",
    "enter",
    "experiment_name",
    "experiments",
    "files_of_lost",
    "has_rows",
    "inspection",
    "is_on_record",
    "judged_on_record",
    "on_record",
    "params_of",
    "plan_tags",
    "runs_on_record",
    "set_aside",
    "store_uri",
    "stored_plan",
    "study_page",
    "trial_run",
    "trial_runs",
]
