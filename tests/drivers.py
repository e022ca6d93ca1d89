"""Drivers for tests: over a ledger and a tracker, training in this process."""

import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from rich.console import Console

from harness import paths
from harness.checkpoints import Checkpoints
from harness.desk import Desk, Ledger, SearchDesk, database
from harness.executors import Executor, InProcess, Places
from harness.planner import Plan
from harness.run.driver import Driver
from harness.study import Ablation, Cell
from harness.tracking import Tracker

ORIGIN = {"dataset.digest": "d" * 64, "device": "a CPU"}
ALONE = Plan(workers=1, lanes=1, compiled=frozenset(), mixed=frozenset(), why="")


def desk_of(study: Ablation, name: str = "a_study") -> Desk:
    """The desk of an ablation's default budget."""
    ledger = Ledger(f"{name}.default", ["minimize"], database())
    return Desk(ledger, study.cells("default"), lambda metrics: metrics[study.objective or "elbo/train"])


def first_seeds(cells: Sequence[Cell]) -> Collection[str]:
    """Those of seed 0."""
    return [c.spec.id for c in cells if c.seed == 0]


def driver_of(
    desk: Desk | SearchDesk,
    tracker: Tracker,
    scratch: Path,
    executor_of: Callable[[Places], Executor] = InProcess,
    plan: Plan = ALONE,
    said: io.StringIO | None = None,
) -> Driver:
    """A driver, with all figures for seeds 0."""
    places = Places(scratch, paths.mlruns() / "checkpoints")
    console = Console(file=said or io.StringIO())
    shown = "test/squared_error"
    kept = Checkpoints(places.checkpoints)
    return Driver(desk, tracker, lambda: executor_of(places), plan, console, ORIGIN, kept, shown, first_seeds)
