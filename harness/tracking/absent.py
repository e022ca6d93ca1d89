"""What people have deleted or renamed in MLflow: found before a study goes on without it, and said with the ways on."""

import shlex
import sys
from datetime import UTC, datetime
from typing import Any

from harness import paths
from harness.errors import MachineError, UserError
from harness.stores import addresses
from harness.tracking import library
from harness.tracking.store import ensure_store, experiment_name, store_uri


def refuse_deleted(experiment: Any) -> None:
    """Raise MachineError, with the ways on, if an experiment of MLflow's was deleted there."""
    if experiment.lifecycle_stage == "active":
        return
    restore = f"experiments restore --experiment-id {experiment.experiment_id}"
    raise MachineError(
        f"the experiment {experiment.name!r} was deleted in MLflow, with all runs of the study\nrestore it: {_mlflow(restore)}\n"
        f"or start the study anew, beside what was deleted: the same command with {paths.flag('anew')}"
    )


def refuse_renamed(client: Any, study: str, budget: str) -> None:
    """Raise MachineError, with the ways on, if another name than a study's is that of the experiment with its parent run."""
    others = {e.experiment_id: e for e in client.search_experiments()}
    tags = " and ".join(f"tags.`{key}` = '{value}'" for key, value in (("kind", "study"), ("budget", budget)))
    parents = [r for r in client.search_runs(list(others), tags) if r.data.tags.get("study") == study]
    if not parents:
        return
    found, name = others[parents[0].info.experiment_id], experiment_name(study, budget)
    rename = f"experiments rename --experiment-id {found.experiment_id} --new-name {shlex.quote(name)}"
    raise MachineError(
        f"the experiment {name!r} is called {found.name!r} in MLflow\nrename it back: {_mlflow(rename)}\n"
        "or run the study under another name"
    )


def check_deleted(experiment: Any, name: str) -> None:
    """Raise UserError unless the experiment of this name was deleted, so that its study may begin anew; None if there is none."""
    if experiment is None or experiment.lifecycle_stage == "active":
        raise UserError(
            f"{paths.flag('anew')} is for a study whose experiment was deleted in MLflow: {name!r} was not\n"
            "delete it there first, or give the study another name"
        )


def set_aside(study: str, budget: str) -> None:
    """Give the deleted experiment of a study and budget another name, so that the study may begin anew. It stays deleted.

    Raises:
        UserError: there is no such experiment, or it was not deleted.
        MachineError: the tracking store cannot be used.
    """
    ensure_store()
    client, name = library.client(), experiment_name(study, budget)
    found = client.get_experiment_by_name(name)
    check_deleted(found, name)
    client.restore_experiment(found.experiment_id)
    client.rename_experiment(found.experiment_id, f"{name} (deleted, {datetime.now(UTC):%Y-%m-%d %H:%M:%S})")
    client.delete_experiment(found.experiment_id)


def _mlflow(command: str) -> str:
    """Return a command of MLflow's, to be pasted, for the tracking store in use."""
    uri = store_uri()
    setting = f"MLFLOW_TRACKING_URI={shlex.quote(uri)} " if addresses.sqlite_path(uri) else ""  # others may hold a password
    return f"{setting}{shlex.quote(sys.executable)} -m mlflow {command}"
