"""The commands `harness study` and `harness report`."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import IO, cast

from rich.console import Console

from harness import paths, references, report, resources
from harness.errors import UserError
from harness.evidence import Witness
from harness.executors import Spares
from harness.queue import completed_runs, driver_lock, trial_uri
from harness.runner import disk, preparation
from harness.runner.preparation import Briefing
from harness.runner.progress import clock
from harness.runner.room import Room
from harness.runner.session import Session, Setting, run, winners
from harness.runner.signals import Stopped, Stops
from harness.runner.study_store import StudyStore
from harness.runner.terminal import Lasting
from harness.stores import homes
from harness.stores.space import full_in_words
from harness.study import Ablation, LoadedStudy, load
from harness.tracking import MlflowTracker, check_anew, check_store, is_on_record, set_aside, store_uri


@full_in_words()
def run_study(
    reference: str,
    budget: str,
    device: str,
    workers: int | None,
    console: Console,
    *,
    per_gpu: int = 1,
    executor: str = "processes",
    storage: str = "",
    anew: bool = False,
) -> int:
    """Run what is missing of a study, report, and print where to look: `harness study`.

    Args:
        reference: the study, as `study.load` takes it.
        budget: of the study, by name.
        device: the name of the device, as in `devices.named`.
        workers: how many trials or cohorts train at a time; None for one per core or GPU.
        console: where progress is shown.
        per_gpu: how many of them may share a GPU of this machine.
        executor: the name of an executor.
        storage: the URI of a PostgreSQL server that holds the trials, for several drivers; empty for the file in mlruns/.
        anew: begin with a new experiment beside the study's own, which was deleted in MLflow.

    Returns:
        The exit code: 1 if a trial failed for good, 128 and the number of the signal that stopped the study, else 0.
    """
    console.file = cast("IO[str]", Lasting(console.file))
    loaded = load(reference)
    name, study = loaded.name, loaded.study
    resources.check(device, executor, workers, per_gpu)
    homes.check()
    check_store()
    if anew:
        check_anew(name, budget)
    trial_uri(storage)  # raises an error before anything is written: for a wrong URI, for a file that is damaged or not Optuna's
    room = Room(device, workers, per_gpu, executor, study.runs(budget))
    room.check_least(study.trials(budget))
    if not _surely_here(device, workers, per_gpu):
        room.place()  # raises an error before anything is written
    done = preparation.finished(loaded, budget, storage)
    begun = bool(storage) or done.exists() or any((paths.mlruns() / name).exists() for name in ("optuna.db", "mlflow.db"))
    disk.check(disk.at_least(0 if begun else study.runs(budget)))
    with closing(Spares()) as spares:
        if not done.exists() and executor == "processes" and resources.only_cpu(device):
            spares.start(min(workers or resources.cores(), study.runs(budget)))
        console.print(f"{name}, {budget} budget: {study.shape(budget)}", highlight=False, markup=False)
        stops, started = Stops(), time.monotonic()
        with stops.listening():
            try:
                with stops.allowed():
                    briefing, gather, note = _prepared(loaded, budget, console, room)
                    if not begun:  # all trials are missing: whether there is room can be said before anything is written
                        disk.check(disk.estimate(study.trials(budget), (at := gather()).data, study.runs(budget), len(at.workers)))
                origin = {"dataset.digest": briefing.digest} | ({"features.sha256": briefing.features} if briefing.features else {})
                references.note_pinned([study.base.dataset])
                paths.mlruns().mkdir(parents=True, exist_ok=True)  # not before: a start that is refused makes none
                preparation.keep(briefing, note)
                with _driver_lock(name, budget, storage):
                    if anew:
                        set_aside(name, budget)
                    session = Session(
                        store=_store(loaded, budget, storage),
                        console=console,
                        gather=gather,
                        per_gpu=per_gpu,
                        executor=executor,
                        origin=origin,
                        stops=stops,
                        spares=spares,
                    )
                    failures = _train_and_report(loaded, session, started)
                    done.parent.mkdir(parents=True, exist_ok=True)
                    done.touch()
            except Stopped as stopped:
                console.print(f"stopped after {clock(time.monotonic() - started)}; the same command goes on where it left off")
                return stopped.code
    return stops.code or failures


def _surely_here(device: str, workers: int | None, per_gpu: int) -> bool:
    """Return whether devices that were named so are there on every machine, as far as `resources.check` has seen."""
    return device == "cpu" or (device == "auto" and workers is None and per_gpu == 1)


def _prepared(
    loaded: LoadedStudy,
    budget: str,
    console: Console,
    room: Room,
) -> tuple[Briefing, Callable[[], Setting], Path | None]:
    """Say what is known of a study's data.

    Return it with a function that returns what its trials train on, and where, and the file to keep a new note of it in, if any.
    """
    say = partial(console.print, highlight=False, markup=False)  # names of files may look like markup
    briefing, dataset, note = preparation.noted(loaded, budget), None, None
    if briefing is None:
        briefing, dataset, note = preparation.gather(loaded, budget, say, room.check)
    else:
        for line in briefing.lines:
            say(line)
    if words := room.make_fit(briefing.bytes, briefing.made_of):
        say(words)
    network = briefing.network

    @cache
    def gather() -> Setting:
        """Load what has not been loaded yet."""
        from harness import data

        base, (device, workers) = loaded.study.base, room.place()
        images = dataset or data.load_dataset(base.dataset, lambda line: None, base.dataset_args)
        witness = Witness.of(loaded, budget, images, network, room.executor)
        return Setting(data=images, device=device, workers=workers, witness=witness)

    return briefing, gather, note


def _train_and_report(loaded: LoadedStudy, session: Session, started: float) -> int:
    """Train what is missing and report. Return 1 if a trial failed for good, else 0."""
    console, store = session.console, session.store
    results, search_results, trained = run(session, loaded.study)
    if not trained:
        console.print("\n".join(_nothing_to_do(results, search_results)), highlight=False, markup=False, soft_wrap=True)
    if trained or not (store.tracker.study_finished and report.is_current(results, store.tracker, search_results, loaded.question)):
        console.print("writing the report")
        try:
            report.publish(results, store.tracker, search_results, session.stops.allowed, question=loaded.question)
        except Stopped:
            store.tracker.stop_study()
            raise
    report.show(results, console, search_results)
    _print_links(store, console)
    if trained:
        console.print(f"done in {clock(time.monotonic() - started)}", highlight=False)
    return int(bool(results.failures))


def _nothing_to_do(results: report.AblationResults, search_results: report.SearchResults | None) -> list[str]:
    """Return why nothing is left to train, in lines: all trials are done, but for those that failed for good, and why these did."""
    searched = {f"trial #{t.number}": t.why for t in (search_results.in_state("FAIL") if search_results else ())}
    failures = results.failures
    judged = {f"{c.arm} / seed {c.seed}": failures[c.spec.id] for c in results.cells if c.spec.id in failures}
    failed = [f"  {name}: {''.join(why.splitlines()[:1])}" for name, why in (searched | judged).items()]
    if not failed:
        return ["nothing to do: all trials are done"]
    again = "; with changed code its arms are tried again" if judged else ""
    return [f"nothing to do: all trials are done but {len(failed)} that failed for good{again}", *failed]


@full_in_words()
def report_study(reference: str, budget: str, console: Console, *, storage: str = "") -> int:
    """Write the report of what is on record anew and show it: `harness report`. Return the exit code.

    Raises:
        UserError: no trial of the study and budget is on record.
    """
    loaded = load(reference)
    name, study = loaded.name, loaded.study
    check_store()
    nothing = UserError(
        f"no trial of {name} ({budget} budget) is on record\n{paths.command('study', name=reference, budget=budget)}"
    )
    if not is_on_record(name, budget):
        raise nothing
    unwritable = homes.unwritable()
    with nullcontext() if unwritable else _driver_lock(name, budget, storage):
        store = _store(loaded, budget, storage)
        search_results, best = None, {}
        if study.search is not None:
            with store.search_queue(study.search, study.search.batch_of(budget, 1)) as search_queue:
                search_results = report.SearchResults.of(study.search, budget, search_queue)
            best = winners(search_results.best, study.search)
        ablation = study.judged(budget, best)
        results = _on_record(store, ablation, study.part)
        if not results.arms and not (search_results and search_results.history):
            raise nothing
        if results.pending:
            run = paths.command("study", name=loaded.reference, budget=budget)
            why = "never run, or the plan or code of your own has changed since"
            console.print(
                f"{results.pending} of {len(results.cells)} trials are not on record: {why}\n{run}", highlight=False, markup=False
            )
        if unwritable:
            console.print(f"{unwritable}: the page stays as it is", highlight=False, markup=False)
        else:
            report.publish(results, store.tracker, search_results, question=loaded.question)
        report.show(results, console, search_results)
        _print_links(store, console)
    return 0


def _on_record(store: StudyStore, study: Ablation, part: str) -> report.AblationResults:
    """Return what is on record of an ablation, up to the first look that settles its claims or that is not reached."""
    for seeds in study.budgets[store.budget].planned_looks:
        with store.ablation_queue(study, study.cells(store.budget, seeds), part) as queue:
            if completed_runs(queue.store) and not part:  # a search's winners are stated once they are trained
                store.keep_plan(study, queue.store)
            results = store.results(study, queue, seeds)
        if results.pending or results.settled:
            break
    return results


def _store(loaded: LoadedStudy, budget: str, storage: str) -> StudyStore:
    """Return the records of a study. Its experiment is created if there is none."""
    study = loaded.study
    note = report.note(loaded.question, budget, study)
    tracker = MlflowTracker(loaded.name, budget, note, scores=study.scores, varied=study.varied)
    return StudyStore(loaded.name, budget, tracker, storage, loaded.question)


def _driver_lock(name: str, budget: str, storage: str) -> AbstractContextManager[None]:
    """Return the lock that admits one driver of a study per home folder; none for a shared store, which takes any number."""
    return nullcontext() if storage else driver_lock(f"{name}.{budget}")


def _print_links(store: StudyStore, console: Console) -> None:
    """Print the path of the report and the address of the study in the MLflow UI."""
    page = report.folder(store.name, store.budget) / "report.html"
    if page.exists():
        console.print(f"report: {page}", soft_wrap=True, highlight=False, markup=False)
    uri = store_uri()
    server = uri if uri.startswith("http") else f"{paths.command('ui')}, then http://127.0.0.1:5000"
    console.print(f"browse: {server}{store.tracker.ui_path}", soft_wrap=True, highlight=False, markup=False)
