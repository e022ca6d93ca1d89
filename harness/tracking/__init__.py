"""Runs on record, in MLflow.

protocol.py: what a driver asks for. store.py: where the records lie. runs.py: writing a study's runs. reading.py: beside a driver.
"""

import os

# MLflow reads these when it is imported, which the files of this folder do.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_TRUNCATE_LONG_VALUES", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK", "true")

from harness.tracking.protocol import Record, Tracker
from harness.tracking.reading import on_record, refitted
from harness.tracking.runs import TAG_LIMIT, MlflowTracker
from harness.tracking.store import SCHEMA, artifact_location, ensure_store, experiment_name, mlflow, store_uri, study_page

__all__ = [
    "SCHEMA",
    "TAG_LIMIT",
    "MlflowTracker",
    "Record",
    "Tracker",
    "artifact_location",
    "ensure_store",
    "experiment_name",
    "mlflow",
    "on_record",
    "refitted",
    "store_uri",
    "study_page",
]
