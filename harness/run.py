"""The loop of a study: ask the desk, train, commit to the tracker, tell the desk; then the report."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from harness import data, engine, paths, planner, report
from harness.desk import Desk, Ticket, driver_lock
from harness.display import Display, clock
from harness.errors import MachineError, UserError
from harness.executors import Epoch, Event, Executor, Failed, Finished, Processes
from harness.metrics import features
from harness.planner import Plan
from harness.spec import TrialSpec
from harness.study import SCORES, Ablation, Cell, load
from harness.tracking import MlflowTracker, Tracker, store_uri

FREE_BYTES_PER_TRIAL = 3 * engine.MEBI
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived. `code` is the exit code that tells which."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Running:
    """A trial in training: its ticket, its run's id, and the newest epoch and what it showed."""

    ticket: Ticket
    run: str
    epoch: int = 0
    row: dict[str, float] = field(default_factory=dict)


@dataclass
class Driver:
    """One study, from its plan to its results."""

    study: Ablation
    cells: tuple[Cell, ...]
    desk: Desk
    tracker: Tracker
    executor_of: Callable[[], Executor]
    plan: Plan
    console: Console
    origin: Mapping[str, str]  # tags of every run

    def reconcile(self) -> list[str]:
        """Settle what a dead driver left: finished work is taken over, the rest is lost and will be tried again."""
        adopted = lost = 0
        for number in self.desk.running():
            finished = self.tracker.finished(number)
            if finished is not None:
                run, metrics = finished
                self.desk.note_run(number, run)
                self.desk.tell(number, self.value(metrics))
                adopted += 1
            else:
                self.desk.lose(number)
                lost += 1
        closed = self.tracker.close_orphans(set())
        said = []
        if adopted:
            said.append(f"took over {adopted} trial{'s' * (adopted != 1)} that had finished just before the last stop")
        if lost or closed:
            said.append(f"{max(lost, closed)} trial{'s' * (max(lost, closed) != 1)} of an earlier start was cut off: run again")
        return said

    def value(self, metrics: Any) -> float:
        """What the ledger remembers of a trial: the study's objective, or the training ELBO where it has none."""
        return metrics[self.study.objective or "elbo/train"]

    def run(self, scratch: Path) -> None:
        """Train every cell that is not done."""

        def alike(cell: Cell) -> tuple[str, str]:
            return self.plan.group(cell.spec).id, cell.spec.cohort.id

        order = sorted(self.cells, key=alike) if self.plan.lanes > 1 else self.cells
        waiting = self.desk.plan(order)
        if not waiting:
            return
        self.tracker.reopen_study()
        executor = self.executor_of()
        done = len(self.cells) - waiting
        display = Display(self.console, len(self.cells), done, waiting * self.cells[0].spec.epochs, executor.free())
        running: dict[str, Running] = {}  # by spec id
        try:
            while True:
                self._fill(executor, scratch, running)
                if not running:
                    return
                for event in executor.events():
                    self._heed(event, running, display)
        except Stopped:
            display.say(f"stopping: {len(running)} trials cut off, {display.done} of {display.trials} kept")
            executor.close()
            self.reconcile()  # the lock is ours: what still says RUNNING was cut off, whatever the signal interrupted
            self.tracker.stop_study()
            raise
        finally:
            display.close()
            executor.close()

    def _fill(self, executor: Executor, scratch: Path, running: dict[str, Running]) -> None:
        while executor.free():
            tickets = self.desk.take(self.plan.lanes, self.plan.group)
            if not tickets:
                return
            for t in tickets:
                run = self.tracker.begin(t.cell.spec, t.cell.arm, t.number, t.attempt, self.origin)
                self.desk.note_run(t.number, run)
                running[t.cell.spec.id] = Running(t, run)
            specs = [t.cell.spec for t in tickets]
            executor.submit(specs, scratch, compiled=specs[0].cohort in self.plan.compiled, pictured=self._pictured(specs))

    def _pictured(self, specs: Sequence[TrialSpec]) -> list[str]:
        """Those to draw all figures of: the first seed of every arm."""
        first = {cell.arm: cell.spec.id for cell in sorted(self.cells, key=lambda c: -c.seed)}
        return [s.id for s in specs if s.id in first.values()]

    def _heed(self, event: Event, running: dict[str, Running], display: Display) -> None:
        trial = running[event.spec]
        ticket, run, cell = trial.ticket, trial.run, trial.ticket.cell
        name = f"{cell.arm} / seed {cell.seed}"
        match event:
            case Epoch(epoch=epoch, row=row):
                trial.epoch, trial.row = epoch, row
                self.tracker.log(run, epoch, row)
                display.epoch(name, epoch, cell.spec.epochs, row)
            case Finished(result=result, files=files):
                self.tracker.finish(run, result, files)  # the commit: what comes after may be lost and is repaired at start
                self.desk.tell(ticket.number, self.value(trial.row | dict(result.metrics)))
                shutil.rmtree(files)
                del running[event.spec]
                error = result.metrics["test/squared_error"]
                display.trial(name, f"squared error {error:.2f} in {clock(result.metrics['perf/train_s'])}")
            case Failed(why=why, final=final):
                self.tracker.fail(run, why)
                again = self.desk.fail(ticket, why, final=final)
                del running[event.spec]
                unspent = -trial.epoch if again else cell.spec.epochs - trial.epoch  # a retry starts from the first epoch
                display.trial(name, f"FAILED{', will try again' if again else ''}: {why}", unspent, over=not again)


@contextmanager
def _stop_signals() -> Iterator[None]:
    """SIGTERM and SIGINT raise `Stopped` in this block; a second one ends the process at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for s in codes:
            signal.signal(s, signal.SIG_DFL)
        raise Stopped(codes[signal.Signals(number)])

    codes = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED}
    before = {s: signal.signal(s, stop) for s in codes}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def run_study(name: str, budget: str, device: str, workers: int | None, console: Console) -> int:
    """`harness study`: run what is missing of a study, report, and say where to look. Returns the exit code."""
    study = load(name)
    cells = study.cells(budget)
    where = engine.device(device)
    words = engine.describe(where)
    most = engine.cores() if where.type == "cpu" else 1
    count = most if workers is None else workers
    if not 1 <= count <= most:
        raise UserError(f"WORKERS={count}: from 1 to {most} for {words}")
    _check_disk(len(cells))
    console.print(f"{name}, {budget} budget: {len(study.arms)} arms x {len(study.budgets[budget].seeds)} seeds", highlight=False)
    dataset = data.load(study.base.dataset, say=console.print)
    classifier = features.classifier(dataset, say=console.print)
    origin = {"device": words, "dataset.digest": dataset.digest, "features.sha256": classifier.digest}
    started = time.monotonic()
    with driver_lock(f"{name}.{budget}"), _stop_signals():
        tracker, desk = _open(name, budget, study, cells)
        plan = planner.plan([c.spec for c in cells], dataset, where, count)
        driver = Driver(study, cells, desk, tracker, lambda: Processes(count, device), plan, console, origin)
        for line in driver.reconcile():
            console.print(line)
        missing = len(cells) - len(desk.done()) - len(desk.given_up())
        if missing:
            console.print(f"{missing} trials to run on {words}: {plan.why}", highlight=False)
            scratch = paths.mlruns() / "scratch" / f"{name}.{budget}"
            shutil.rmtree(scratch, ignore_errors=True)
            try:
                driver.run(scratch)
            except Stopped as stop:
                console.print(f"stopped after {clock(time.monotonic() - started)}; the same command goes on where it left off")
                return stop.code
            shutil.rmtree(scratch, ignore_errors=True)
        else:
            console.print(f"nothing to do: all {len(cells)} trials are done")
        findings = report.Findings.collect(name, budget, study, cells, desk.done(), desk.given_up(), tracker)
        if missing or not (report.folder(name, budget) / "report.html").exists():
            console.print("writing the report")
            report.publish(findings, tracker)
        report.show(findings, console)
        _say_where(name, budget, tracker, console)
        if missing:
            console.print(f"done in {clock(time.monotonic() - started)}", highlight=False)
    return 1 if desk.given_up() else 0


def report_study(name: str, budget: str, console: Console) -> int:
    """`harness report`: the report of what is on record, written anew."""
    study = load(name)
    cells = study.cells(budget)
    with driver_lock(f"{name}.{budget}"):
        tracker, desk = _open(name, budget, study, cells)
        findings = report.Findings.collect(name, budget, study, cells, desk.done(), desk.given_up(), tracker)
        if not findings.arms:
            raise UserError(f"no trial of {name} ({budget} budget) is on record\nmake study NAME={name} BUDGET={budget}")
        report.publish(findings, tracker)
        report.show(findings, console)
        _say_where(name, budget, tracker, console)
    return 0


def _open(name: str, budget: str, study: Ablation, cells: tuple[Cell, ...]) -> tuple[MlflowTracker, Desk]:
    tracker = MlflowTracker(name, budget, report.note(name, budget, study))
    direction = "minimize" if study.objective and SCORES[study.objective].better == "lower" else "maximize"
    return tracker, Desk(f"{name}.{budget}", cells, direction)


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
