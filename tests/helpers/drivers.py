"""Drivers for tests: over a queue and a tracker, training in this process."""

import io
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from memory_tracker import MemoryTracker
from optuna.trial import TrialState
from rich.console import Console

from harness import paths
from harness.data import load_dataset
from harness.executors import Executor, InProcess, OutputDirs
from harness.queue import AblationQueue, Assignment, Outcome, TrialQueue, TrialStore, database
from harness.runner.ahead import Ahead
from harness.runner.board import Board
from harness.runner.driver import Driver
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Cell
from harness.tracking import Tracker
from harness.training.checkpoints import Checkpoints
from harness.training.planner import Plan

ORIGIN = {"dataset.digest": load_dataset("digits").digest, "device": "a CPU"}
ALONE = Plan(workers=1, lanes=1, mixed=frozenset(), why="")
TWO_STEPS = {"dataset": "digits", "batch_size": 600}
PAIR = Ablation(  # never looks at the test set: drawing takes most of a tiny trial's time
    base=TrialSpec(**TWO_STEPS),
    arms={"bce": {}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=1, seeds=range(2), evaluation="validation")},
)


def queue_of(
    study: Ablation,
    name: str = "a_study",
    lanes: int = 1,
    plan: Plan = ALONE,
    kind: type[AblationQueue] = AblationQueue,
    code: str | None = None,
) -> AblationQueue:
    """The queue of an ablation's default budget, in the order in which its trials train together."""
    store = TrialStore(f"{name}.default", ["minimize"], database(), code=code)
    cells = study.cells("default")
    alike = sorted(cells, key=lambda c: plan.group(c.spec)) if lanes > 1 else cells
    return kind(store, alike, lambda metrics: metrics[study.objective or "elbo/train"])


def first_seeds(cells: Sequence[Cell]) -> Collection[str]:
    """Those of seed 0."""
    return [c.spec.id for c in cells if c.seed == 0]


def driver_of(
    queue: TrialQueue,
    tracker: Tracker,
    scratch: Path,
    executor_of: Callable[[OutputDirs], Executor] = InProcess,
    plan: Plan = ALONE,
    *,
    printed: io.StringIO | None = None,
    headline: str = "test/squared_error",
    ahead: Ahead | None = None,
) -> Driver:
    """A driver, with all figures for seeds 0."""
    dirs = OutputDirs(scratch, paths.mlruns() / "checkpoints" / "cpu" / queue.store.name)
    return Driver(
        queue=queue,
        tracker=tracker,
        start_executor=lambda: executor_of(dirs),
        plan=plan,
        board=Board(Console(file=printed or io.StringIO())),
        origin=ORIGIN,
        checkpoints=Checkpoints(dirs.checkpoints),
        headline=headline,
        draw_all_figures=first_seeds,
        ahead=ahead or Ahead(),
    )


class Kill(BaseException):
    """The process ends here; nothing catches it."""


def dying(after: int = 0) -> type[AblationQueue]:
    """A queue whose driver is killed between a run's end and its tell, when so many have been told."""

    class Dying(AblationQueue):
        told = 0

        def complete(self, assignment: Assignment, metrics: Mapping[str, float]) -> Outcome:
            if self.told == after:
                raise Kill
            self.told += 1
            return super().complete(assignment, metrics)

    return Dying


class Start:
    """A start of `harness study`, without its report: a new driver and queue over the same store and records."""

    def __init__(
        self,
        plan: Ablation,
        tracker: Tracker,
        executor_of: Callable[[OutputDirs], Executor] = InProcess,
        lanes: int = 1,
        together: Plan | None = None,
        queue: type[AblationQueue] = AblationQueue,
        code: str | None = None,
    ) -> None:
        self.said = io.StringIO()
        self.plan = replace(together or ALONE, lanes=lanes)
        self.queue = queue_of(plan, lanes=lanes, plan=self.plan, kind=queue, code=code)
        seen = "validation" if plan.budgets["default"].evaluation == "validation" else "test"
        self.driver_in = lambda scratch: driver_of(
            self.queue, tracker, scratch, executor_of, self.plan, printed=self.said, headline=f"{seen}/squared_error"
        )

    def go(self, scratch: Path) -> "Start":
        """Train what is missing."""
        driver = self.driver_in(scratch)
        self.notes = driver.reconcile()
        self.queue.prepare()
        driver.run()
        return self

    def states(self) -> Counter[str]:
        """How many trials are in each state."""
        return Counter(t.state.name for t in self.queue.store.trials())


def statuses(tracker: MemoryTracker) -> Counter[str]:
    """How many runs have each status."""
    return Counter(run["status"] for run in tracker.runs.values())


def one_result_per_cell(plan: Ablation, start: Start, tracker: MemoryTracker) -> bool:
    """Whether every cell has one result that counts, and no cell of another plan has."""
    finished = Counter(run["cell"] for run in tracker.runs.values() if run["status"] == "FINISHED")
    complete = Counter(t.user_attrs["cell"] for t in start.queue.store.trials(TrialState.COMPLETE))
    wanted = Counter(c.spec.id for c in plan.cells("default"))
    agree = all(tracker.runs[run]["cell"] == cell for cell, run in start.queue.done().items())
    return finished == complete == wanted and agree
