"""`harness study` and `harness report`: a study from its file to its report.

driver.py: the loop of asking, training, recording and telling. studies.py: ablations and searches. stopping.py: signals.
"""

import os
import shutil
import time
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console

from harness import data, engine, paths, report
from harness.desk import database, driver_lock
from harness.display import clock
from harness.errors import MachineError, UserError
from harness.executors import EXECUTORS
from harness.metrics import features
from harness.run.stopping import Stopped, Stops
from harness.run.studies import Records, Site, refit_of, run_ablation, run_search
from harness.study import Ablation, Search, load
from harness.tables import look_up
from harness.tracking import MlflowTracker, store_uri

FREE_BYTES_PER_TRIAL = 3 * engine.MEBI


def run_study(
    name: str, budget: str, device: str, workers: int | None, console: Console, *, executor: str = "processes", storage: str = ""
) -> int:
    """`harness study`: run what is missing of a study, report, and say where to look. Returns the exit code."""
    study = load(name)
    look_up(dict.fromkeys(EXECUTORS), executor, "executor")
    if storage:
        database(storage)  # before anything else is written
    where = engine.device(device)
    devices = engine.places(device, 1 if executor == "local" and workers is None else workers, executor in ("local", "processes"))
    _check_disk(_runs(study, budget))
    console.print(f"{name}, {budget} budget: {_shape(study, budget)}", highlight=False)
    stops, started = Stops(), time.monotonic()
    with stops.listening():
        try:
            with stops.allowed():
                dataset = data.load(study.base.dataset, say=console.print)
                classifier = features.classifier(dataset, say=console.print)
            origin = {"device": engine.describe(where), "dataset.digest": dataset.digest, "features.sha256": classifier.digest}
            with _driving(name, budget, storage):
                records = Records(name, budget, MlflowTracker(name, budget, report.note(name, budget, study)), storage)
                failures = _run(study, Site(records, console, dataset, where, devices, executor, origin, stops), started)
        except Stopped as stop:
            console.print(f"stopped after {clock(time.monotonic() - started)}; the same command goes on where it left off")
            return stop.code
    return stops.code or failures


def _run(study: Ablation | Search, site: Site, started: float) -> int:
    """Train what is missing and report; 1 where a trial failed for good."""
    records, console, found = site.records, site.console, None
    name, budget, tracker = records.name, records.budget, records.tracker
    if isinstance(study, Search):
        findings, found, trained = run_search(site, study)
    else:
        findings, trained = run_ablation(site, study)
    if not trained:
        console.print("nothing to do: all trials are done")
    if trained or not (tracker.study_finished and (report.folder(name, budget) / "report.html").exists()):
        console.print("writing the report")
        try:
            report.publish(findings, tracker, found, site.stops.allowed)
        except Stopped:
            tracker.stop_study()
            raise
    report.show(findings, console, found)
    _say_where(name, budget, tracker, console)
    if trained:
        console.print(f"done in {clock(time.monotonic() - started)}", highlight=False)
    return int(bool(findings.failures))


def report_study(name: str, budget: str, console: Console, *, storage: str = "") -> int:
    """`harness report`: the report of what is on record, written anew."""
    study = load(name)
    with _driving(name, budget, storage):
        records = Records(name, budget, MlflowTracker(name, budget, report.note(name, budget, study)), storage)
        found, part = None, ""
        if isinstance(study, Search):
            with records.search_desk(study, study.batch_of(budget, 1)) as searching:
                found = report.SearchFound.of(study, budget, searching)
                study, part = refit_of(study, budget, searching), "refit"
        with records.desk(study, part) as desk:
            findings = records.findings(study, desk)
        if not findings.arms and not (found and found.history):
            raise UserError(f"no trial of {name} ({budget} budget) is on record\nmake study NAME={name} BUDGET={budget}")
        report.publish(findings, records.tracker, found)
        report.show(findings, console, found)
        _say_where(name, budget, records.tracker, console)
    return 0


def _driving(name: str, budget: str, storage: str) -> AbstractContextManager[None]:
    """One driver of a study per home folder; on a shared ledger as many as come."""
    return nullcontext() if storage else driver_lock(f"{name}.{budget}")


def _shape(study: Ablation | Search, budget: str) -> str:
    if isinstance(study, Ablation):
        return f"{len(study.arms)} arms x {len(study.budgets[budget].seeds)} seeds"
    chosen = study.budgets[budget]
    seeds = f" x {len(study.seeds)} seeds" if len(study.seeds) > 1 else ""
    then = f"then the best against the base on {len(chosen.refit_seeds)} new seeds"
    return f"{chosen.trials} trials{seeds} by {study.sampler_of(budget)}, {then}"


def _runs(study: Ablation | Search, budget: str) -> int:
    """About how many runs a study has."""
    if isinstance(study, Ablation):
        return len(study.cells(budget))
    chosen = study.budgets[budget]
    return chosen.trials * len(study.seeds) + 2 * len(chosen.refit_seeds)


def _say_where(name: str, budget: str, tracker: MlflowTracker, console: Console) -> None:
    console.print(f"report: {report.folder(name, budget) / 'report.html'}", soft_wrap=True, highlight=False)
    uri = store_uri()
    where = uri if uri.startswith("http") else "make ui, then http://127.0.0.1:5000"
    console.print(f"browse: {where}{tracker.ui_path}", soft_wrap=True, highlight=False)


def _check_disk(trials: int) -> None:
    paths.mlruns().mkdir(parents=True, exist_ok=True)
    if not os.access(paths.mlruns(), os.W_OK):
        raise MachineError(f"cannot write into {paths.mlruns()}")
    free = shutil.disk_usage(paths.mlruns()).free
    if free < trials * FREE_BYTES_PER_TRIAL:
        need = trials * FREE_BYTES_PER_TRIAL // engine.MEBI
        raise MachineError(f"{paths.mlruns()} has {free // engine.MEBI} MiB free, {trials} trials need about {need} MiB")
