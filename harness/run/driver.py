"""The loop of a study: ask the desk, train, commit to the tracker, tell the desk."""

import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console

from harness.checkpoints import Checkpoints
from harness.desk import Desk, SearchDesk, Ticket
from harness.desk.ledger import GRACE_S
from harness.display import Display, clock
from harness.errors import HarnessError
from harness.executors import Dropped, Epoch, Event, Executor, Failed, Finished, Job
from harness.planner import Plan
from harness.run.stopping import Stopped, Stops
from harness.study import Cell
from harness.tracking import Tracker

CLOSING_S = 6.0  # for workers to write their checkpoints, when ten are all there is
IDLE_S = 0.2  # between looks while only others, or a sampler, are at work
FENCED = "its driver was stopped for so long that another took the trial"


@dataclass
class Running:
    """A run in training: its ticket, the epoch it goes on from, the last on record, and the newest with what it showed."""

    ticket: Ticket
    start: int = 0
    logged: int = 0
    epoch: int = 0
    row: dict[str, float] = field(default_factory=dict)


@dataclass
class Driver:
    """One desk, from what is missing to what is done."""

    desk: Desk | SearchDesk
    tracker: Tracker
    executor_of: Callable[[], Executor]
    plan: Plan
    console: Console
    origin: Mapping[str, str]  # tags of every run
    checkpoints: Checkpoints
    shown: str  # the score that a finished trial is announced with
    pictured: Callable[[Sequence[Cell]], Collection[str]] = lambda cells: ()  # ids of those to draw all figures of
    stops: Stops = field(default_factory=Stops)

    def __post_init__(self) -> None:
        self.running: dict[str, Running] = {}  # by spec id
        self.ending: set[str] = set()  # ids of pruned trials that still hold their place
        self.looked = time.monotonic()

    @property
    def ledger(self) -> str:
        """What ties runs to this desk."""
        return self.desk.ledger.name

    def reconcile(self) -> list[str]:
        """Settle what dead drivers left, so that every result counts once. A second call finds nothing to do."""
        self.looked = time.monotonic()
        finished = self.tracker.finished_runs(self.ledger)
        repairs = self.desk.reconcile(self.tracker.look, finished)
        strays = finished - self.desk.runs()
        for run in strays:
            self.tracker.fail(run, "not counted: its trial went on in another run", killed=True)
        alive = {r.ticket.run for r in self.running.values()} | (self.desk.live_runs() if self.desk.ledger.shared else set())
        closed = self.tracker.close_orphans(self.ledger, alive, GRACE_S if self.desk.ledger.shared else 0)
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
        missing = self.desk.missing
        if not missing:
            return
        executor = self.executor_of()
        display = Display(self.console, self.desk.trials, self.desk.trials - missing, missing * self.desk.epochs, executor.free())
        try:
            while True:
                self._fill(executor)
                if self.running or self.ending:
                    for event in self._events(executor):
                        self._heed(event, executor, display)
                    self.desk.flush()
                elif self.desk.busy():
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
        self.desk.give_back(self.tracker.look)
        self.reconcile()
        self.tracker.stop_study()

    def _idle(self) -> None:
        with self.stops.allowed():
            time.sleep(IDLE_S)
        if self.desk.ledger.shared and time.monotonic() - self.looked > GRACE_S / 4:
            for line in self.reconcile():
                self.console.print(line)

    def _fill(self, executor: Executor) -> None:
        starts: dict[str, int] = {}

        def start(cell: Cell) -> int:
            return starts.setdefault(cell.spec.id, self.checkpoints.newest(cell.spec))

        def alike(cell: Cell) -> tuple:
            return self.plan.group(cell.spec), start(cell)

        while executor.free():
            tickets = self.desk.take(self.plan.lanes, alike)
            if not tickets:
                return
            epochs = start(tickets[0].cell)
            for ticket in tickets:
                self.running[ticket.cell.spec.id] = self._begin(ticket, epochs)
            specs = tuple(t.cell.spec for t in tickets)
            compiled = specs[0].cohort in self.plan.compiled
            pictured = frozenset(self.pictured([t.cell for t in tickets]))
            executor.submit(Job(specs, start=epochs, compiled=compiled, pictured=pictured, heeded=self.desk.prunes))

    def _begin(self, ticket: Ticket, epochs: int) -> Running:
        """The run of a trial: the one that its checkpoint belongs to goes on, any other trial begins a new one."""
        logged = self.tracker.reopen(ticket.run) if ticket.run and epochs else None
        if logged is not None:
            return Running(ticket, epochs, logged)
        cell = ticket.cell
        facts = {**self.origin, "ledger": self.ledger}
        run = self.tracker.begin(cell.spec, cell.arm, ticket.number, ticket.attempt, facts)
        self.desk.note_run(ticket, run)
        return Running(replace(ticket, run=run), epochs)

    def _heed(self, event: Event, executor: Executor, display: Display) -> None:
        trial = self.running.get(event.spec)
        if not isinstance(event, Epoch):
            self.ending.discard(event.spec)
        if trial is None or isinstance(event, Dropped):  # what is over may still be heard of
            return
        ticket, cell = trial.ticket, trial.ticket.cell
        name = f"{cell.arm} / seed {cell.seed}"
        match event:
            case Epoch(epoch=epoch, row=row):
                trial.epoch, trial.row = epoch, row
                if epoch > trial.logged:  # an epoch taken again after a stop is on record already
                    self.tracker.log(ticket.run, epoch, row)
                if epoch <= trial.start:  # told again from the checkpoint
                    return
                display.epoch(name, epoch, cell.spec.epochs, row)
                if self.desk.report(ticket, epoch, row):
                    executor.drop([event.spec])
                    self.ending.add(event.spec)
                    self.tracker.prune(ticket.run, epoch)
                    self._over(event.spec)
                    self.desk.prune(ticket)
                    display.trial(name, f"pruned after {epoch} of {cell.spec.epochs} epochs", cell.spec.epochs - epoch)
            case Finished(result=result, files=files):
                self.tracker.finish(ticket.run, result, files)  # the commit: what comes after may be lost and is repaired at start
                kept = self.desk.tell(ticket, trial.row | dict(result.metrics))
                shutil.rmtree(files)
                self._over(event.spec)
                if kept:
                    known = trial.row | dict(result.metrics)
                    display.trial(name, f"{self.shown} {known[self.shown]:.2f} in {clock(result.metrics['perf/train_s'])}")
                else:
                    self.tracker.fail(ticket.run, FENCED, killed=True)
                    display.trial(name, f"dropped: {FENCED}", over=False)
            case Failed(why=why, final=final):
                self.tracker.fail(ticket.run, why)
                again = self.desk.fail(ticket, why, final=final)
                if again:
                    del self.running[event.spec]
                else:
                    self._over(event.spec)
                unspent = -trial.epoch if again else cell.spec.epochs - trial.epoch
                display.trial(name, f"FAILED{', will try again' if again else ''}: {why}", unspent, over=not again)
        if event.spec not in self.running and (spared := self.desk.spared(ticket)):
            display.trial(cell.arm, f"over early, {spared} runs spared", spared * cell.spec.epochs, over=spared)

    def _over(self, spec: str) -> None:
        self.checkpoints.drop(self.running.pop(spec).ticket.cell.spec)


def _trials(count: int) -> str:
    return f"{count} trial{'s' * (count != 1)}"
