"""What a start trains and reports once plan, data and machine are in order, and the command `harness report`."""

import shlex
import time
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console

from harness import paths, report
from harness.errors import UserError
from harness.figures.palette import styles
from harness.queue import completed_runs, driver_lock
from harness.runner.board import clock
from harness.runner.costs import Costs
from harness.runner.estimate import AS_ARMS, Part, report_s
from harness.runner.session import Session, run, winners
from harness.runner.signals import Stopped
from harness.runner.study_store import StudyStore
from harness.runner.terminal import aloud
from harness.stores import homes
from harness.stores.space import full_in_words
from harness.study import Ablation, LoadedStudy, load
from harness.tracking import MlflowTracker, beside, check_store, is_on_record, server, store_uri


def train_and_report(loaded: LoadedStudy, session: Session, started: float) -> int:
    """Train what is missing and report. Return 1 if a trial failed for good, else 0."""
    board, store = session.board, session.store
    console = board.console
    results, search_results, trained = run(session, loaded.study)
    session.spares.close()  # whose memory the report may need
    if not trained:
        console.print("\n".join(_nothing_to_do(results, search_results)), highlight=False, markup=False, soft_wrap=True)
    if trained or not (store.tracker.study_finished and report.is_current(results, store.tracker, search_results, loaded.question)):
        console.print("writing the report")
        board.now("writing the report")
        board.expect(Part(_report_s(results, search_results, session.costs)).left)
        try:
            report.publish(results, store.tracker, search_results, session.stops.allowed, question=loaded.question)
        except Stopped:
            store.tracker.stop_study()
            raise
    board.close()
    _show(results, store, console, search_results)
    if trained:
        console.print(f"done in {clock(time.monotonic() - started)}", highlight=False)
    return int(bool(results.failures))


def _report_s(results: report.AblationResults, search_results: report.SearchResults | None, costs: Costs) -> float:
    """Return the seconds that the report should take, as the trials' time left had it."""
    trials = len(results.cells) + (len(search_results.history) if search_results else 0)
    return report_s(trials, len(results.study.arms) + AS_ARMS * bool(search_results), costs.pace)


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
def report_study(reference: str, budget: str, console: Console, *, storage: str = "", keep: bool = False) -> int:
    """Write the report of what is on record anew and show it: `harness report`. Return the exit code.

    A report that is current stays as it is if `keep` is True: it names the command that it was first written by.

    Raises:
        UserError: no trial of the study and budget is on record.
    """
    loaded = load(reference)
    name, study = loaded.name, loaded.study
    check_store()
    if not is_on_record(name, budget):
        raise _nothing(loaded, budget)
    unwritable = homes.unwritable()
    with nullcontext() if unwritable else lock_of(name, budget, storage):
        store = store_of(loaded, budget, storage)
        search_results, best = None, {}
        if study.search is not None:
            with store.search_queue(study.search, study.search.batch_of(budget, 1)) as search_queue:
                search_results = report.SearchResults.of(study.search, budget, search_queue)
            best = winners(search_results.best, study.search)
        ablation = study.judged(budget, best)
        results = _on_record(store, ablation, study.part)
        if not results.arms and not (search_results and search_results.history):
            raise _nothing(loaded, budget)
        if results.pending:
            run = paths.command("study", name=loaded.reference, budget=budget)
            why = "never run, or the plan or code of your own has changed since"
            with aloud(console):
                console.print(
                    f"{results.pending} of {len(results.cells)} trials are not on record: {why}\n{run}",
                    highlight=False,
                    markup=False,
                )
        if unwritable:
            with aloud(console):
                console.print(f"{unwritable}: the page stays as it is", highlight=False, markup=False)
        elif not (keep and report.is_current(results, store.tracker, search_results, loaded.question)):
            report.publish(results, store.tracker, search_results, question=loaded.question)
        _show(results, store, console, search_results)
    return 0


def _nothing(loaded: LoadedStudy, budget: str) -> UserError:
    """Return the error for a study and budget of which no trial is on record, with what else is."""
    run = paths.command("study", name=loaded.reference, budget=budget)
    return UserError(f"no trial of {loaded.name} ({budget} budget) is on record\n{run}{beside(loaded.name, budget)}")


def _show(
    results: report.AblationResults, store: StudyStore, console: Console, search_results: report.SearchResults | None
) -> None:
    """Print the report, or on a quiet console its verdicts, and where to look."""
    with aloud(console) as quiet:
        report.show(results, console, search_results, verdicts_only=quiet)
        _print_links(store, console)


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


def store_of(loaded: LoadedStudy, budget: str, storage: str) -> StudyStore:
    """Return the records of a study. Its experiment is created if there is none."""
    study = loaded.study
    note = report.note(loaded.question, budget, study)
    colours = {arm: style.colour for arm, style in styles(list(study.arms)).items()} if isinstance(study, Ablation) else {}
    tracker = MlflowTracker(
        loaded.name,
        budget,
        note,
        scores=study.scores,
        varied=study.varied,
        epochs=study.budgets[budget].epochs,
        colours=colours,
    )
    return StudyStore(loaded.name, budget, tracker, storage, loaded.question)


def lock_of(name: str, budget: str, storage: str) -> AbstractContextManager[None]:
    """Return the lock that admits one driver of a study per home folder; none for a shared store, which takes any number."""
    return nullcontext() if storage else driver_lock(f"{name}.{budget}")


def _print_links(store: StudyStore, console: Console) -> None:
    """Print the path of the report and the address of the study in the MLflow UI."""
    page = report.folder(store.name, store.budget) / "report.html"
    if page.exists():
        console.print(f"report: {shlex.quote(str(page))}", soft_wrap=True, highlight=False, markup=False)
    first = "" if store_uri().startswith("http") else f"{paths.command('ui')}, then "
    console.print(f"browse: {first}{server.address()}{store.tracker.ui_path}", soft_wrap=True, highlight=False, markup=False)
