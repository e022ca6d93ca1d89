"""The loop of a study: ask the desk, train, commit to the tracker, tell the desk."""

import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console

from harness.errors import HarnessError
from harness.executors import Epoch, Event, Executor, Failed, Finished, Job, Pruned
from harness.queue import Assignment, Outcome, TrialQueue
from harness.queue.store import GRACE_S
from harness.runner.progress import Display, clock
from harness.runner.signals import Stopped, Stops
from harness.study import Cell
from harness.tracking import Tracker
from harness.training.checkpoints import Checkpoints
from harness.training.planner import Plan

CLOSING_S = 6.0  # for workers to write their checkpoints, when ten are all there is
IDLE_S = 0.2  # between looks while only others, or a sampler, are at work
FENCED = "its driver was stopped for so long that another took the trial"


@dataclass
class Running:
    """A run in training: its ticket, the epoch it goes on from, the last on record, and the newest with what it showed."""

    assignment: Assignment
    start: int = 0
    logged: int = 0
    epoch: int = 0
    row: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class Driver:
    """One queue, from what is missing to what is done.

    Attributes:
        queue: what is to be run.
        tracker: where runs are recorded.
        start_executor: starts what trains, once there is something to train.
        plan: how trials become programs.
        console: where progress is shown.
        origin: tags of every run.
        checkpoints: of trials in training.
        headline: the score that a finished trial is announced with.
        draw_all_figures: gives the ids of those of some cells to draw all figures of.
        stops: whether this process has been asked to stop.
    """

    queue: TrialQueue
    tracker: Tracker
    start_executor: Callable[[], Executor]
    plan: Plan
    console: Console
    origin: Mapping[str, str]
    checkpoints: Checkpoints
    headline: str
    draw_all_figures: Callable[[Sequence[Cell]], Collection[str]] = lambda cells: ()
    stops: Stops = field(default_factory=Stops)

    def __post_init__(self) -> None:
        self.running: dict[str, Running] = {}  # by spec id
        self.ending: set[str] = set()  # ids of pruned trials that still hold their place
        self.looked = time.monotonic()

    @property
    def store_name(self) -> str:
        """What ties runs to this queue."""
        return self.queue.store.name

    def reconcile(self) -> list[str]:
        """Settle what dead drivers left, so that every result counts once. A second call finds nothing to do."""
        self.looked = time.monotonic()
        finished = self.tracker.finished_runs(self.store_name)
        repairs = self.queue.reconcile(self.tracker.look, finished)
        strays = finished - self.queue.runs()
        for run in strays:
            self.tracker.fail(run, "not counted: its trial went on in another run", killed=True)
        alive = {r.assignment.run for r in self.running.values()} | (self.queue.live_runs() if self.queue.store.shared else set())
        closed = self.tracker.close_orphans(self.store_name, alive, GRACE_S if self.queue.store.shared else 0)
        said = []
        if repairs.adopted:
            said.append(f"took over {_trials(repairs.adopted)} that had finished just before the last stop")
        cut_off = max(repairs.lost, closed)
        if cut_off:
            said.append(f"{_trials(cut_off)} of an earlier start {'were' if cut_off > 1 else 'was'} cut off: run again")
        if strays:
            said.append(f"{len(strays)} finished twice: counted once")
        return said

    def run(self) -> None:
        """Train what is missing."""
        missing = self.queue.missing
        if not missing:
            return
        executor = self.start_executor()
        display = Display(
            self.console, self.queue.trials, self.queue.trials - missing, missing * self.queue.epochs, executor.free()
        )
        try:
            while True:
                self._fill(executor)
                if self.running or self.ending:
                    for event in self._events(executor):
                        self._handle(event, executor, display)
                elif self.queue.busy():
                    self._idle()
                else:
                    return
        except (Stopped, HarnessError) as end:
            why = "stopping" if isinstance(end, Stopped) else "cannot go on"
            display.say(f"{why}: {len(self.running)} trials cut off, {display.done} of {display.trials} kept")
            executor.close(CLOSING_S)
            self._stop()
            raise
        finally:
            display.close()
            executor.close()

    def _events(self, executor: Executor) -> Iterator[Event]:
        """What happens; it may be stopped while it is waited for, not while it is dealt with."""
        events = executor.events()
        while True:
            with self.stops.allowed():
                event = next(events, None)
            if event is None:
                return
            yield event

    def _stop(self) -> None:
        """What is cut off waits again, whatever the signal interrupted; a run that had just finished counts."""
        self.running.clear()
        self.queue.release(self.tracker.look)
        self.reconcile()
        self.tracker.stop_study()

    def _idle(self) -> None:
        with self.stops.allowed():
            time.sleep(IDLE_S)
        if self.queue.store.shared and time.monotonic() - self.looked > GRACE_S / 4:
            for line in self.reconcile():
                self.console.print(line)

    def _fill(self, executor: Executor) -> None:
        starts: dict[str, int] = {}

        def start(cell: Cell) -> int:
            return starts.setdefault(cell.spec.id, self.checkpoints.newest(cell.spec))

        def alike(cell: Cell) -> tuple:
            return self.plan.group(cell.spec), start(cell)

        while executor.free():
            assignments = self.queue.take(self.plan.lanes, alike)
            if not assignments:
                return
            epochs = start(assignments[0].cell)
            for assignment in assignments:
                self.running[assignment.cell.spec.id] = self._begin(assignment, epochs)
            specs = tuple(t.cell.spec for t in assignments)
            compiled = specs[0].cohort in self.plan.compiled
            draw_all_figures = frozenset(self.draw_all_figures([t.cell for t in assignments]))
            executor.submit(
                Job(
                    specs,
                    start=epochs,
                    compiled=compiled,
                    draw_all_figures=draw_all_figures,
                    waits_for_pruning=self.queue.pruning is not None,
                )
            )

    def _begin(self, assignment: Assignment, epochs: int) -> Running:
        """The run of a trial: the one that its checkpoint belongs to goes on, any other trial begins a new one."""
        logged = self.tracker.reopen(assignment.run) if assignment.run and epochs else None
        if logged is not None:
            return Running(assignment, epochs, logged)
        cell = assignment.cell
        facts = {**self.origin, "ledger": self.store_name}
        run = self.tracker.begin(cell.spec, cell.arm, assignment.number, assignment.attempt, facts)
        self.queue.note_run(assignment, run)
        return Running(replace(assignment, run=run), epochs)

    def _handle(self, event: Event, executor: Executor, display: Display) -> None:
        trial = self.running.get(event.spec)
        if not isinstance(event, Epoch):
            self.ending.discard(event.spec)
        if trial is None or isinstance(event, Pruned):  # what is over may still be heard of
            return
        assignment, cell = trial.assignment, trial.assignment.cell
        name = f"{cell.arm} / seed {cell.seed}"
        ended: Outcome | None = None
        match event:
            case Epoch(epoch=epoch, row=row):
                trial.epoch, trial.row = epoch, row
                if epoch > trial.logged:  # an epoch taken again after a stop is on record already
                    self.tracker.log(assignment.run, epoch, row)
                if epoch <= trial.start:  # told again from the checkpoint
                    return
                display.epoch(name, epoch, cell.spec.epochs, row)
                pruning = self.queue.pruning
                if pruning is not None and pruning.report(assignment, epoch, row):
                    executor.prune([event.spec])
                    self.ending.add(event.spec)
                    self.tracker.prune(assignment.run, epoch)
                    self._over(event.spec)
                    ended = pruning.pruned(assignment)
                    display.trial(name, f"pruned after {epoch} of {cell.spec.epochs} epochs", cell.spec.epochs - epoch)
            case Finished(result=result, files=files):
                self.tracker.finish(
                    assignment.run, result, files
                )  # the commit: what comes after may be lost and is repaired at start
                scores = trial.row | dict(result.metrics)
                ended = self.queue.complete(assignment, scores)
                shutil.rmtree(files)
                self._over(event.spec)
                if ended.counted:
                    display.trial(name, f"{self.headline} {scores[self.headline]:.2f} in {clock(scores['perf/train_s'])}")
                else:
                    self.tracker.fail(assignment.run, FENCED, killed=True)
                    display.trial(name, f"dropped: {FENCED}", over=False)
            case Failed(why=why, final=final):
                self.tracker.fail(assignment.run, why)
                ended = self.queue.fail(assignment, why, final=final)
                if ended.retried:
                    del self.running[event.spec]
                else:
                    self._over(event.spec)
                unspent = -trial.epoch if ended.retried else cell.spec.epochs - trial.epoch
                again = ", will try again" if ended.retried else ""
                display.trial(name, f"FAILED{again}: {why}", unspent, over=not ended.retried)
        if ended is not None and ended.skipped:
            display.trial(
                cell.arm, f"over early, {ended.skipped} runs spared", ended.skipped * cell.spec.epochs, over=ended.skipped
            )

    def _over(self, spec: str) -> None:
        self.checkpoints.discard(self.running.pop(spec).assignment.cell.spec)


def _trials(count: int) -> str:
    return f"{count} trial{'s' * (count != 1)}"
