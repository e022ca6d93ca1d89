"""Drivers for tests: over a queue and a tracker, training in this process."""

import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from rich.console import Console

from harness import paths
from harness.executors import Executor, InProcess, OutputDirs
from harness.queue import AblationQueue, TrialQueue, TrialStore, database
from harness.runner.driver import Driver
from harness.study import Ablation, Cell
from harness.tracking import Tracker
from harness.training.checkpoints import Checkpoints
from harness.training.planner import Plan

ORIGIN = {"dataset.digest": "d" * 64, "device": "a CPU"}
ALONE = Plan(workers=1, lanes=1, compiled=frozenset(), mixed=frozenset(), why="")


def queue_of(study: Ablation, name: str = "a_study", lanes: int = 1, plan: Plan = ALONE) -> AblationQueue:
    """The queue of an ablation's default budget, in the order in which its trials train together."""
    store = TrialStore(f"{name}.default", ["minimize"], database())
    cells = study.cells("default")
    alike = sorted(cells, key=lambda c: plan.group(c.spec).id) if lanes > 1 else cells
    return AblationQueue(store, alike, lambda metrics: metrics[study.objective or "elbo/train"])


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
) -> Driver:
    """A driver, with all figures for seeds 0."""
    dirs = OutputDirs(scratch, paths.mlruns() / "checkpoints")
    return Driver(
        queue=queue,
        tracker=tracker,
        start_executor=lambda: executor_of(dirs),
        plan=plan,
        console=Console(file=printed or io.StringIO()),
        origin=ORIGIN,
        checkpoints=Checkpoints(dirs.checkpoints),
        headline=headline,
        draw_all_figures=first_seeds,
    )
