"""Runs on record in MLflow: how they are written, read, arranged and served, and the protocol that a driver needs of a tracker.

In come specs, rows, results and files; out come runs that can be browsed, and the same numbers read back. MLflow is imported on
first use and by this folder alone. Nothing here decides what is run or how it is judged.
"""

from harness.tracking.parent import TAG_LIMIT
from harness.tracking.protocol import Record, Tracker
from harness.tracking.reading import TrialRun, has_rows, judged_on_record, kept_plan, on_record, trial_run, trial_runs
from harness.tracking.runs import MlflowTracker
from harness.tracking.store import MLFLOW_SCHEMA, artifact_location, ensure_store, experiment_name, store_uri, study_page

__all__ = [
    "MLFLOW_SCHEMA",
    "TAG_LIMIT",
    "MlflowTracker",
    "Record",
    "Tracker",
    "TrialRun",
    "artifact_location",
    "ensure_store",
    "experiment_name",
    "has_rows",
    "judged_on_record",
    "kept_plan",
    "on_record",
    "store_uri",
    "study_page",
    "trial_run",
    "trial_runs",
]
