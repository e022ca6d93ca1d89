"""The loop of a study: take trials from the queue, train them, commit them to the tracker, tell the queue."""

import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.errors import DataError, HarnessError, counted
from harness.evidence import Beginning, History, Place, Witness
from harness.executors import Epoch, Event, Executor, Failed, Finished, Job, Notice, Pruned, ends_trial
from harness.queue import Assignment, Outcome, TrialQueue
from harness.queue.store import GRACE_S
from harness.runner.ahead import Ahead
from harness.runner.board import Board, clock
from harness.runner.costs import SEARCHED, Costs, Work, work_of
from harness.runner.estimate import NOTHING_MORE, Estimate, Later
from harness.runner.progress import Display
from harness.runner.reconciling import reconcile
from harness.runner.running import Running, how_they_go_on, name_of
from harness.runner.signals import Stopped, Stops
from harness.scores.rows import IMAGES_PER_S, TRAIN_S
from harness.spec import Result
from harness.stores.space import DiskFullError, full, full_in_words
from harness.study import Cell
from harness.tracking import Tracker
from harness.training.checkpoints import Checkpoints
from harness.training.planner import Plan

CLOSING_S = 6.0  # for workers to write their checkpoints, of the 10 s that a stopped driver may have
IDLE_S = 0.2  # between two looks at the queue while only other drivers, or a sampler, are busy
FENCED = "its driver was stopped for so long that another took the trial"


@dataclass(kw_only=True)
class Driver:
    """The loop over one queue, until nothing is missing.

    Attributes:
        queue: what is to be run.
        tracker: where runs are recorded.
        start_executor: starts the executor, once there is something to train.
        plan: how trials become programs.
        board: where progress is shown.
        origin: tags of every run.
        checkpoints: of trials in training.
        headline: the score that a finished trial is announced with.
        draw_all_figures: gives the ids of those of some cells to draw all figures of.
        ahead: what follows the last trial; it is begun when a worker has nothing more to do.
        stops: the request to stop this process, and where it takes effect.
        witness: of the trials, which writes their manifests.
        costs: what trials have taken in this process so far.
        images: that an epoch trains on.
        later: what follows the trials.
    """

    queue: TrialQueue
    tracker: Tracker
    start_executor: Callable[[], Executor]
    plan: Plan
    board: Board
    origin: Mapping[str, str]
    checkpoints: Checkpoints
    headline: str
    draw_all_figures: Callable[[Sequence[Cell]], Collection[str]] = lambda cells: ()
    ahead: Ahead = field(default_factory=Ahead)
    stops: Stops = field(default_factory=Stops)
    witness: Witness = field(default_factory=Witness)
    costs: Costs = field(default_factory=Costs)
    images: int = 0
    later: Later = NOTHING_MORE

    def __post_init__(self) -> None:
        self.running: dict[str, Running] = {}  # by spec id
        self.ending: set[str] = set()  # ids of pruned trials that still hold their worker
        self.notices: set[str] = set()  # those that were shown
        self.works: dict[str, Work] = {}  # what is known of the trials to come, by spec id
        self.reconciled_at = time.monotonic()

    @property
    def store_name(self) -> str:
        """The name of the trial store, by which runs are tied to this queue."""
        return self.queue.store.name

    def reconcile(self) -> list[str]:
        """Settle what dead drivers have left, so that every result counts once, and return what was done, in words.

        A second call finds nothing to do.
        """
        self.reconciled_at = time.monotonic()
        return reconcile(self.queue, self.tracker, [r.assignment.run for r in self.running.values()])

    def run(self) -> None:
        """Train what is missing.

        Raises:
            Stopped: a signal asked the process to stop. The trials that were cut off are released.
            HarnessError: the executor, the queue or the tracker cannot go on.
        """
        missing = self.queue.missing
        if not missing:
            return
        executor = self.start_executor()
        display = self._display(executor, missing)
        try:
            with full_in_words():
                self._train(executor, display)
            self.board.now("reading what is on record")
        except (Stopped, HarnessError) as stop:
            reason = "stopping" if isinstance(stop, Stopped) else "cannot go on"
            cut_off = list(self.running.values())
            self.board.say(f"{reason}: {counted(len(cut_off), 'trial')} cut off, {display.done} of {display.trials} kept")
            display.close()
            self.board.now("saving checkpoints")
            executor.close(CLOSING_S)
            for line in how_they_go_on(cut_off, self.checkpoints, self.origin.get("dataset.digest", "")):
                self.board.say(line)
            self._stop()
            raise
        finally:
            display.close()
            executor.close()
            self.ahead.join()

    def _display(self, executor: Executor, missing: int) -> Display:
        """Return the display of this many missing trials, which an executor is to train."""
        cells, workers = self.queue.coming()[:missing], max(self.plan.workers, executor.free())
        all_figures = frozenset(self.draw_all_figures(cells))
        self.works = {cell.spec.id: work_of(cell, all_figures) for cell in cells}
        unknown = [Work(SEARCHED, self.queue.epochs, "validation")] * (missing - len(cells))
        estimate = Estimate(
            [*self.works.values(), *unknown],
            workers=workers,
            lanes=self.plan.lanes,
            evaluators=executor.most_evaluators,
            costs=self.costs,
            later=self.later,
        )
        return Display(self.board, self.queue.trials, self.queue.trials - missing, workers, estimate)

    def _train(self, executor: Executor, display: Display) -> None:
        """Give out jobs and handle their events until nothing is missing."""
        while True:
            self._fill(executor, display)
            if count := self.queue.read_back:
                self.queue.read_back = 0
                display.estimate.drop(count)
                display.trial(f"{count} of them", "read back from MLflow", over=count)
            if self.running or self.ending:
                if not self.ahead.started and executor.free():
                    self.ahead.start()
                for event in self._events(executor):
                    self._handle(event, executor, display)
            elif self.queue.busy():
                self._idle()
            else:
                return

    def _events(self, executor: Executor) -> Iterator[Event]:
        """Yield the executor's events. A signal may stop the process while it waits for one, but not while one is handled."""
        events = executor.events()
        while True:
            with self.stops.allowed():
                event = next(events, None)
            if event is None:
                return
            yield event

    def _stop(self) -> None:
        """Release the trials that were cut off, so that they wait again; a run that had just finished counts.

        Where the disk is full this may not be: the next start does it.
        """
        self.running.clear()
        with suppress(DiskFullError), full_in_words():
            self.queue.release(self.tracker.look)
            self.reconcile()
            self.tracker.stop_study()

    def _idle(self) -> None:
        """Wait a moment for other drivers or the sampler. With a shared store, settle now and then what dead drivers have left."""
        with self.stops.allowed():
            time.sleep(IDLE_S)
        if self.queue.store.shared and time.monotonic() - self.reconciled_at > GRACE_S / 4:
            for line in self.reconcile():
                self.board.say(line)

    def _fill(self, executor: Executor, display: Display) -> None:
        """Give the executor new jobs for as long as it has room and the queue has trials."""
        start_epochs: dict[str, int] = {}
        images = self.origin.get("dataset.digest", "")

        def start_epoch(cell: Cell) -> int:
            return start_epochs.setdefault(cell.spec.id, self.checkpoints.newest(cell.spec, images))

        def program_of(cell: Cell) -> tuple[str, int]:
            return self.plan.group(cell.spec), start_epoch(cell)

        while executor.free():
            assignments = self.queue.take(self.plan.lanes, program_of)
            if not assignments:
                return
            epochs = start_epoch(assignments[0].cell)
            self.running |= {a.cell.spec.id: self._begin(a, epochs) for a in assignments}
            specs = tuple(assignment.cell.spec for assignment in assignments)
            for a in assignments:
                display.began(name_of(a.cell), a.cell.spec.epochs, epochs)
            unknown = Work(SEARCHED, self.queue.epochs, "validation")
            display.estimate.submitted({spec.id: self.works.get(spec.id, unknown) for spec in specs}, epochs)
            draw_all_figures = frozenset(self.draw_all_figures([assignment.cell for assignment in assignments]))
            executor.submit(
                Job(
                    specs,
                    start=epochs,
                    execution=self.plan.execution(specs[0]),
                    draw_all_figures=draw_all_figures,
                    waits_for_pruning=self.queue.pruning is not None,
                    images=images,
                )
            )

    def _begin(self, assignment: Assignment, epochs: int) -> Running:
        """Return the run of a trial: the one that its checkpoint belongs to, reopened, or else a new one."""
        logged = self.tracker.reopen(assignment.run) if assignment.run and epochs else None
        cell, beginning = assignment.cell, Beginning()
        if epochs:
            beginning = Beginning(checkpoint={"epoch": epochs, "sha256": self.checkpoints.digest(cell.spec, epochs)})
        if logged is not None:
            return Running(assignment, epochs, logged, beginning)
        tags = {**self.origin, "ledger": self.store_name}  # the tag that runs on record have
        run = self.tracker.begin(cell.spec, cell.arm, assignment.number, assignment.attempt, tags)
        self.queue.note_run(assignment, run)
        return Running(replace(assignment, run=run), epochs, beginning=beginning)

    def _handle(self, event: Event, executor: Executor, display: Display) -> None:
        """Record an event of a trial and tell the queue, which may prune, count, retry or skip trials."""
        if isinstance(event, Notice):
            if event.words not in self.notices:
                self.notices.add(event.words)
                self.board.say(event.words)
            return
        trial = self.running.get(event.spec)
        if ends_trial(event):
            self.ending.discard(event.spec)
        if trial is None or isinstance(event, Pruned):  # events of a trial that has ended may still arrive
            return
        assignment, cell = trial.assignment, trial.assignment.cell
        name, estimate = name_of(cell), display.estimate
        outcome: Outcome | None = None
        match event:
            case Epoch(epoch=epoch, row=row):
                trial.epoch, trial.row, trial.rows[epoch] = epoch, row, row
                if epoch > trial.logged:  # an epoch that is trained again after a stop is already recorded
                    self.tracker.log(assignment.run, epoch, row)
                if epoch <= trial.start:  # reported again from the checkpoint
                    return
                estimate.epoch(event.spec, epoch, self._epoch_s(row))
                display.epoch(name, epoch, cell.spec.epochs, row)
                pruning = self.queue.pruning
                if pruning is not None and pruning.report(assignment, epoch, row):
                    executor.prune([event.spec])
                    self.ending.add(event.spec)
                    self.tracker.prune(assignment.run, epoch)
                    self._end(event.spec)
                    outcome = pruning.pruned(assignment)
                    estimate.ended(event.spec, pruned=True)
                    display.trial(name, f"pruned after {epoch} of {counted(cell.spec.epochs, 'epoch')}")
            case Finished(result=result, files=files):
                estimate.ended(event.spec, evaluated=True)
                try:
                    self._commit(trial, result, files)
                finally:
                    shutil.rmtree(
                        files
                    )  # also where a full disk keeps it from being committed: whatever is written next needs room
                scores = trial.row | dict(result.metrics)
                outcome = self.queue.complete(assignment, scores)
                self._end(event.spec)
                if outcome.counted:
                    stopped = trial.epoch < cell.spec.epochs
                    early = f", stopped after {trial.epoch} of {counted(cell.spec.epochs, 'epoch')}" if stopped else ""
                    said = f"{self.headline} {scores[self.headline]:.2f}, trained in {clock(scores[TRAIN_S.key])}{early}"
                    display.trial(name, said)
                else:
                    self.tracker.fail(assignment.run, FENCED, killed=True)
                    display.trial(name, f"dropped: {FENCED}", over=False)
            case Failed(why=reason, data=True):  # of this machine, not of the trial: so would all others
                raise DataError(f"{reason}\nno trial failed by this: once the data are as they were, the same command goes on")
            case Failed(why=reason, full=True):
                raise full(reason)
            case Failed(why=reason, final=final):
                self.tracker.fail(assignment.run, reason)
                outcome = self.queue.fail(assignment, reason, final=final)
                if outcome.retried:
                    del self.running[event.spec]
                else:
                    self._end(event.spec)
                estimate.ended(event.spec, again=outcome.retried)
                again = ", will try again" if outcome.retried else ""
                display.trial(name, f"FAILED{again}: {reason}", over=not outcome.retried)
        if outcome is not None and outcome.skipped:
            estimate.drop(outcome.skipped)
            display.trial(cell.arm, f"over early, {counted(outcome.skipped, 'run')} spared", over=outcome.skipped)

    def _epoch_s(self, row: Mapping[str, float]) -> float:
        """Return the seconds that the steps of an epoch took for each trial of a program, whose rate is that of all of them."""
        return self.images / row[IMAGES_PER_S.key] if row[IMAGES_PER_S.key] else 0.0

    def _commit(self, trial: Running, result: Result, files: Path) -> None:
        """Finish the run of a trial, with its manifest.

        This is the commit: whatever is written after it may be lost, and is repaired at the next start.
        """
        assignment = trial.assignment
        history = History(trial.rows, [epoch for epoch in trial.rows if trial.start < epoch <= trial.logged])
        place = Place(assignment.number, assignment.part, assignment.attempt)
        digest = self.witness.testify(files, result, self.tracker.recorded(assignment.run), trial.beginning, place, history)
        self.queue.note_manifest(assignment, digest)
        self.tracker.finish(assignment.run, result, files)

    def _end(self, spec: str) -> None:
        """Forget a trial that has ended, and its checkpoint."""
        self.checkpoints.discard(self.running.pop(spec).assignment.cell.spec)
