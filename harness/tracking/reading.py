"""Reading of recorded runs beside a driver that may be running: nothing is written and no lock is taken."""

from pathlib import Path

from harness.errors import MachineError
from harness.spec import TrialSpec
from harness.stores import databases
from harness.tracking import library
from harness.tracking.protocol import Record
from harness.tracking.store import ensure_store, experiment_name, search_all, store_uri


def refitted(study: str, budget: str) -> dict[str, TrialSpec]:
    """Return the specs that the best trials of a search were trained again as, by arm; none without a record.

    Nothing is written and no lock is taken.

    Raises:
        MachineError: the tracking store cannot be read.
    """
    uri = store_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return {}
    ensure_store()
    client = library.client()
    try:
        experiment = client.get_experiment_by_name(experiment_name(study, budget))
        runs = search_all(client, experiment.experiment_id, f"tags.ledger = '{study}.{budget}.refit'") if experiment else []
        newest = {r.data.tags["arm"]: r.info.artifact_uri for r in reversed(runs) if r.data.tags["arm"] != "base"}
        specs = {arm: library.mlflow().artifacts.load_dict(f"{files}/spec.json") for arm, files in newest.items()}
    except (library.failure(), OSError) as fault:
        raise MachineError(
            f"cannot read the tracking store {databases.redacted(uri)}\n{str(fault).splitlines()[0][:300]}"
        ) from None
    return {arm: TrialSpec.from_dict(spec) for arm, spec in specs.items()}


def on_record(study: str, budget: str) -> tuple[dict[str, Record], dict[str, str]]:
    """Return the finished runs of a study and budget, and the reasons of the failed ones, both by cell id.

    A cell counts as failed if it has neither a result nor a run under way. If a cell has several runs, the newest counts. Nothing
    is written and no lock is taken, so that this may be called beside a driver.

    Raises:
        MachineError: the tracking store cannot be read.
    """
    uri = store_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():  # MLflow would make it
        return {}, {}
    ensure_store()
    client = library.client()
    try:
        experiment = client.get_experiment_by_name(experiment_name(study, budget))
        oldest_first = ["attributes.start_time ASC"]
        runs = search_all(client, experiment.experiment_id, "tags.kind = 'trial'", oldest_first) if experiment else []
    except (library.failure(), OSError) as fault:
        raise MachineError(
            f"cannot read the tracking store {databases.redacted(uri)}\n{str(fault).splitlines()[0][:300]}"
        ) from None
    by_status = {
        status: {r.data.tags["cell"]: r for r in runs if r.info.status == status} for status in ("FINISHED", "RUNNING", "FAILED")
    }
    records = {cell: Record(r.info.run_id, r.data.metrics, r.data.tags) for cell, r in by_status["FINISHED"].items()}
    not_failed = {*by_status["FINISHED"], *by_status["RUNNING"]}
    return records, {
        cell: r.data.tags.get("failure", "unknown") for cell, r in by_status["FAILED"].items() if cell not in not_failed
    }
