"""Reading of recorded runs beside a driver that may be running: nothing is written and no lock is taken."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import references
from harness.errors import MachineError, UserError, unknown
from harness.plans import PLAN_FILE, PLAN_TAG, PlanRecord, read
from harness.scores.rows import ELBO_TRAIN
from harness.spec import TrialSpec
from harness.stores import addresses, databases, servers
from harness.study import Ablation, LoadedStudy
from harness.tracking import library
from harness.tracking.absent import check_deleted, refuse_deleted
from harness.tracking.protocol import Record
from harness.tracking.store import MLFLOW_SCHEMA, OLDEST_FIRST, ensure_store, experiment_name, search_all, store_uri

FIRST = ELBO_TRAIN.key  # a metric of every epoch of every trial


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """A finished trial on record.

    Attributes:
        record: its run, metrics and tags.
        files: the URI of the folder of its files.
    """

    record: Record
    files: str

    @property
    def arm(self) -> str:
        """The arm that the trial belongs to."""
        return self.record.tags["arm"]

    @property
    def seed(self) -> int:
        """The seed of the trial."""
        return int(self.record.tags["seed"])

    def spec(self) -> dict[str, Any]:
        """Return the fields of the trial's spec, as `TrialSpec.as_dict` gave them when it was recorded.

        Raises:
            MachineError: the file cannot be read.
        """
        with readable():
            values: dict[str, Any] = library.mlflow().artifacts.load_dict(f"{self.files}/spec.json")
        return values

    def history(self) -> list[Mapping[str, float]]:
        """Return the metrics of every epoch, by metric key: those that were recorded together with the first epoch's ELBO.

        Raises:
            MachineError: the tracking store cannot be read.
        """
        client = library.client()
        with readable():
            points = {key: client.get_metric_history(self.record.run, key) for key in self.record.metrics}
        first = min(points[FIRST], key=lambda p: (p.step, p.timestamp))
        rows: dict[int, dict[str, float]] = {}
        for key, values in points.items():
            if any((p.step, p.timestamp) == (first.step, first.timestamp) for p in values):
                for p in values:
                    rows.setdefault(p.step, {})[key] = p.value
        return [rows[step] for step in sorted(rows)]

    def files_kept(self) -> set[str]:
        """Return the names of the run's files and folders.

        Raises:
            MachineError: the tracking store cannot be read.
        """
        with readable():
            return {f.path for f in library.client().list_artifacts(self.record.run)}

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Open a copy of one of the run's files for reading; it may be deleted at the end of the block.

        Raises:
            UserError: the run has no such file.
            MachineError: the tracking store cannot be read.
        """
        names = self.files_kept()
        if name not in names:
            raise UserError(
                f"run {self.record.run} ({self.arm} / seed {self.seed}) keeps no {name}: an earlier version recorded it, or the\n"
                f"file was deleted; it has {', '.join(sorted(names)) or 'no files'}. Trained again, it would have it"
            )
        with self._copy(name) as path:
            yield path

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Open a copy of all of the run's files for reading; it may be deleted at the end of the block.

        Raises:
            MachineError: the tracking store cannot be read.
        """
        with self._copy("") as path:
            yield path

    @contextmanager
    def _copy(self, name: str) -> Iterator[Path]:
        """Open a copy of a file, or of all files where the name is empty."""
        with tempfile.TemporaryDirectory(prefix="harness-") as folder:
            with readable():
                path = library.client().download_artifacts(self.record.run, name, folder)
            yield Path(path)


@contextmanager
def readable() -> Iterator[None]:
    """Turn errors of MLflow and of files into one that says which store cannot be read."""
    try:
        yield
    except library.failures(OSError) as fault:
        raise MachineError(
            f"cannot read the tracking store {databases.redacted(store_uri())}\n{str(fault).splitlines()[0][:300]}"
        ) from None


def _is_there() -> bool:
    """Return whether there is a store to read, and set it up for reading; MLflow would make a file that is missing."""
    uri = store_uri()
    path = addresses.sqlite_path(uri)
    if path is not None and not path.exists():
        return False
    if uri.partition(":")[0] in servers.SCHEMES:
        address = servers.address(uri, "MLFLOW_TRACKING_URI")
        if not servers.is_whole(address, MLFLOW_SCHEMA):
            return False
    ensure_store()
    return True


def experiments() -> frozenset[str]:
    """Return the names of all experiments on record, each of a study and budget.

    Raises:
        MachineError: the tracking store cannot be read.
    """
    if not _is_there():
        return frozenset()
    with readable():
        return frozenset(e.name for e in library.client().search_experiments()) - {"Default"}  # MLflow's own


def is_on_record(study: str, budget: str) -> bool:
    """Return whether a study and budget have an experiment. Nothing is written.

    Raises:
        MachineError: it was deleted in MLflow, or the tracking store cannot be read.
    """
    if not _is_there():
        return False
    with readable():
        experiment = library.client().get_experiment_by_name(experiment_name(study, budget))
    if experiment is not None:
        refuse_deleted(experiment)
    return experiment is not None


def check_anew(study: str, budget: str) -> None:
    """Raise an error unless the experiment of a study and budget was deleted in MLflow. Nothing is written.

    Raises:
        UserError: it was not, or there is none.
        MachineError: the tracking store cannot be read.
    """
    name, found = experiment_name(study, budget), None
    if _is_there():
        with readable():
            found = library.client().get_experiment_by_name(name)
    check_deleted(found, name)


def trial_run(run: str) -> TrialRun:
    """Return the finished trial of a run.

    Raises:
        UserError: there is no such run, it is none of a trial, or it has not finished.
        MachineError: the tracking store cannot be read.
    """
    found = None
    if _is_there():
        with readable():
            try:
                found = library.client().get_run(run)
            except library.failures() as fault:
                if not library.is_missing(fault):
                    raise
    if found is None:
        raise UserError(f"no run {run!r} in the tracking store {databases.redacted(store_uri())}")
    if found.data.tags.get("kind") != "trial" or found.info.status != "FINISHED":
        kind = found.data.tags.get("kind", "unknown")
        raise UserError(f"run {run!r} is no finished trial: its kind is {kind!r}, its status {found.info.status}")
    return _trial(found)


def trial_runs(study: str, budget: str) -> dict[str, TrialRun]:
    """Return the finished trials of a study and budget by cell id, in the order in which they were begun, without their files.

    If a cell has several runs, the newest counts.

    Raises:
        UserError: no such study and budget is on record.
        MachineError: the tracking store cannot be read.
    """
    name, studies = experiment_name(study, budget), sorted(experiments())
    is_on_record(study, budget)  # raises an error for a deleted one
    if not studies:
        raise UserError(f"no study is on record in {databases.redacted(store_uri())}\nharness study {study} trains it")
    if name not in studies:
        raise unknown("study on record", name, studies)
    client = library.client()
    with readable():
        experiment = client.get_experiment_by_name(name)
        condition = "tags.kind = 'trial' and attributes.status = 'FINISHED'"
        runs = search_all(client, experiment.experiment_id, condition, OLDEST_FIRST)
    return {r.data.tags["cell"]: _trial(r) for r in runs}


def _trial(run: Any) -> TrialRun:
    """Return MLflow's run of a trial as ours."""
    return TrialRun(record=Record(run.info.run_id, run.data.metrics, run.data.tags), files=run.info.artifact_uri)


def refitted(study: str, budget: str) -> dict[str, TrialSpec]:
    """Return the specs that the best trials of a search were trained again as, by arm; none without a record.

    Nothing is written and no lock is taken.

    Raises:
        MachineError: the tracking store cannot be read.
    """
    if not _is_there():
        return {}
    client = library.client()
    with readable():
        experiment = client.get_experiment_by_name(experiment_name(study, budget))
        runs = search_all(client, experiment.experiment_id, f"tags.ledger = '{study}.{budget}.refit'") if experiment else []
        newest = {r.data.tags["arm"]: r.info.artifact_uri for r in reversed(runs) if r.data.tags["arm"] != "base"}
        specs = {arm: library.mlflow().artifacts.load_dict(f"{files}/spec.json") for arm, files in newest.items()}
    return {arm: TrialSpec.from_dict(spec) for arm, spec in specs.items()}


def on_record(study: str, budget: str) -> tuple[dict[str, Record], dict[str, str]]:
    """Return the finished runs of a study and budget, and the reasons of the failed ones, both by cell id.

    A cell counts as failed if it has neither a result nor a run under way. If a cell has several runs, the newest counts. Nothing
    is written and no lock is taken, so that this may be called beside a driver.

    Raises:
        MachineError: the tracking store cannot be read.
    """
    if not _is_there():
        return {}, {}
    client = library.client()
    with readable():
        experiment = client.get_experiment_by_name(experiment_name(study, budget))
        runs = search_all(client, experiment.experiment_id, "tags.kind = 'trial'", OLDEST_FIRST) if experiment else []
    by_status = {
        status: {r.data.tags["cell"]: r for r in runs if r.info.status == status} for status in ("FINISHED", "RUNNING", "FAILED")
    }
    records = {cell: Record(r.info.run_id, r.data.metrics, r.data.tags) for cell, r in by_status["FINISHED"].items()}
    not_failed = {*by_status["FINISHED"], *by_status["RUNNING"]}
    return records, {
        cell: r.data.tags.get("failure", "unknown") for cell, r in by_status["FAILED"].items() if cell not in not_failed
    }


def stored_plan(notes: Mapping[str, Any] | None, study: str, budget: str) -> PlanRecord:
    """Return the plans and looks in the notes of a study's trial store, held against the copies in its parent run and its runs.

    Without a trial store at hand there is nothing to hold, and the record is empty. Nothing is written and no lock is taken.

    Raises:
        MachineError: the tracking store cannot be read.
    """
    record = read(notes or {})
    if notes is None or not _is_there():
        return record
    client = library.client()
    with readable():
        experiment = client.get_experiment_by_name(experiment_name(study, budget))
        if experiment is None:
            return record
        parents = search_all(client, experiment.experiment_id, "tags.kind = 'study'")
        finished = search_all(client, experiment.experiment_id, "tags.kind = 'trial' and attributes.status = 'FINISHED'")
        tag, text = "", ""
        for parent in parents[:1]:
            tag = parent.data.tags.get(PLAN_TAG, "")
            if PLAN_FILE in {f.path for f in client.list_artifacts(parent.info.run_id)}:
                text = library.mlflow().artifacts.load_text(f"{parent.info.artifact_uri}/{PLAN_FILE}")
    return record.checked(tag=tag, file=text, runs=plan_tags(r.data.tags for r in finished))


def plan_tags(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the digest of the plan that each trial's run was begun under, by the trial's id, from the tags of runs."""
    return {t["cell"]: t[PLAN_TAG] for t in tags if PLAN_TAG in t and "cell" in t}


def has_rows(run: str) -> bool:
    """Return whether a run has scores on record.

    Raises:
        MachineError: the tracking store cannot be read.
    """
    with readable():
        try:
            return bool(library.client().get_run(run).data.metrics)
        except library.failures() as fault:
            if library.is_missing(fault):
                return False
            raise


def judged_on_record(loaded: LoadedStudy, budget: str) -> Ablation:
    """Return the ablation that a study is judged by, with the best trials of a search as far as they are on record."""
    refits = refitted(loaded.name, budget)
    at_hand = {arm: spec for arm, spec in refits.items() if all(map(references.at_hand, spec.references))}
    return loaded.study.judged(budget, at_hand)
