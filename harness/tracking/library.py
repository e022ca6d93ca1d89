"""The one door to MLflow: imported on first use, told to keep to itself, its private names in one place.

Tried with MLflow 3.17 (docs/log.md).
"""

import logging
import os
from functools import cache
from types import ModuleType
from typing import Any

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
}


@cache
def mlflow() -> ModuleType:
    """Return MLflow, imported. It reads its settings from the environment then, so they are put there first, unless they are set."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # what it logs below that, it also raises
    return mlflow


def client() -> Any:
    """Return a client of the store that is set."""
    return mlflow().MlflowClient()


def failure() -> type[Exception]:
    """Return what MLflow raises."""
    from mlflow.exceptions import MlflowException

    return MlflowException


def is_missing(fault: Exception) -> bool:
    """Return whether MLflow raised this because there is no such run."""
    return getattr(fault, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"


def build_tables(uri: str) -> None:
    """Make MLflow's tables in an empty database."""
    mlflow()
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine(uri)
    utils._initialize_tables(engine)
    engine.dispose()


def revisions() -> list[str]:
    """Return the ids of all schemas that this MLflow knows, the newest first."""
    mlflow()
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    script = ScriptDirectory.from_config(utils._get_alembic_config(db_url=""))
    return [step.revision for step in script.walk_revisions()]


def dataset_input(name: str, digest: str) -> Any:
    """Return a data set as MLflow records it beside a run: its name and up to 36 characters of its digest."""
    mlflow()
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput

    source = CodeDatasetSource(tags={"mlflow.source.name": "harness.data"})
    return DatasetInput(MetaDataset(source, name=name, digest=digest[:36])._to_mlflow_entity())
