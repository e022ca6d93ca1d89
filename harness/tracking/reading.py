"""Reading what is on record, beside a driver that may be at work: nothing is written and no lock is taken."""

from pathlib import Path

from harness.errors import MachineError
from harness.spec import TrialSpec
from harness.stores import databases
from harness.tracking import library
from harness.tracking.protocol import Record
from harness.tracking.store import ensure_store, experiment_name, pages, store_uri


def refitted(study: str, budget: str) -> dict[str, TrialSpec]:
    """The trials that a search's best were trained again as, by arm; without a record none. Writes nothing and takes no lock."""
    uri = store_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return {}
    ensure_store()
    client = library.client()
    try:
        experiment = client.get_experiment_by_name(experiment_name(study, budget))
        runs = pages(client, experiment.experiment_id, f"tags.ledger = '{study}.{budget}.refit'") if experiment else []
        newest = {r.data.tags["arm"]: r.info.artifact_uri for r in reversed(runs) if r.data.tags["arm"] != "base"}
        specs = {arm: library.mlflow().artifacts.load_dict(f"{files}/spec.json") for arm, files in newest.items()}
    except (library.failure(), OSError) as fault:
        raise MachineError(f"cannot read the tracking store {databases.shown(uri)}\n{str(fault).splitlines()[0][:300]}") from None
    return {arm: TrialSpec.from_dict(spec) for arm, spec in specs.items()}


def on_record(study: str, budget: str) -> tuple[dict[str, Record], dict[str, str]]:
    """By cell id: the finished runs of a study and budget, and why the cells failed that have neither a result nor a run under way.

    Writes nothing and takes no lock, so it may be asked beside a driver. Where a cell has several runs the newest counts.
    """
    uri = store_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():  # MLflow would make it
        return {}, {}
    ensure_store()
    client = library.client()
    try:
        experiment = client.get_experiment_by_name(experiment_name(study, budget))
        oldest_first = ["attributes.start_time ASC"]
        runs = pages(client, experiment.experiment_id, "tags.kind = 'trial'", oldest_first) if experiment else []
    except (library.failure(), OSError) as fault:
        raise MachineError(f"cannot read the tracking store {databases.shown(uri)}\n{str(fault).splitlines()[0][:300]}") from None
    of = {status: {r.data.tags["cell"]: r for r in runs if r.info.status == status} for status in ("FINISHED", "RUNNING", "FAILED")}
    records = {c: Record(r.info.run_id, r.data.metrics, r.data.tags) for c, r in of["FINISHED"].items()}
    settled = {*of["FINISHED"], *of["RUNNING"]}
    return records, {c: r.data.tags.get("failure", "unknown") for c, r in of["FAILED"].items() if c not in settled}
