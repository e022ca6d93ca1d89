"""The one module that imports MLflow: on first use, with its settings, and with all of its private names that are used.

Tried with MLflow 3.17 (docs/log.md). The code of a winner (exported_model.py) imports MLflow too; it runs beside the model.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Mapping
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
    """Return the module `mlflow`, imported on the first call.

    MLflow reads its settings from the environment when it is imported, so `SETTINGS` are put there first, unless they are set. It
    also asks for the user's home folder, which a user without an entry in the system's list has none of.
    """
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = tempfile.gettempdir()
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    module: ModuleType = mlflow
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it also raises whatever it logs as an error
    return module


def use(uri: str) -> None:
    """Make this URI that of the tracking store, for all clients of this process.

    MLflow remembers where a run's files are by the run's id, which a copy of a home shares with the home: with another store that
    is forgotten.
    """
    if mlflow().get_tracking_uri() != uri:
        from mlflow.tracking._tracking_service import utils

        utils._artifact_repos_cache.clear()
        mlflow().set_tracking_uri(uri)


def client() -> Any:
    """Return an MLflow client of the tracking store that is set."""
    return mlflow().MlflowClient()


def failures(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return the type of MLflow's exceptions, none if it was not imported, for then it has raised none; and the others."""
    if "mlflow" not in sys.modules:
        return others
    from mlflow.exceptions import MlflowException

    return (MlflowException, *others)


def is_missing(fault: Exception) -> bool:
    """Return whether MLflow raised this error because the run does not exist."""
    return getattr(fault, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"


def is_deleted(fault: Exception) -> bool:
    """Return whether MLflow raised this error because the run or experiment is no longer there, or was deleted in its UI."""
    return is_missing(fault) or "must be in the 'active' state" in str(fault)


def build_tables(uri: str) -> None:
    """Create MLflow's tables in an empty database."""
    mlflow()
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine(uri)
    utils._initialize_tables(engine)
    engine.dispose()


def revisions() -> list[str]:
    """Return the ids of all database schemas that this version of MLflow knows, the newest first."""
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


def signature(params: Mapping[str, str | int]) -> Any:
    """Return the signature of a model from floats to floats, (N, any width) each, with parameters that have these defaults."""
    mlflow()
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    rows = Schema([TensorSpec(np.dtype(np.float32), (-1, -1))])
    named = [ParamSpec(name, "string" if isinstance(value, str) else "long", value) for name, value in params.items()]
    return ModelSignature(rows, rows, ParamSchema(named))
