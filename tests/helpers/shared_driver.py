"""A driver on a shared store, as a program: python shared_driver.py STORAGE SCRATCH. Its record is the MLflow of the environment.

Prints a line when its first trial trains, so that whoever started it knows when to kill or stop it.
"""

import sys
from pathlib import Path

from drivers import ALONE, driver_of
from rich.console import Console

from harness.executors import InProcess, Job
from harness.queue import AblationQueue, TrialStore, database
from harness.runner.board import Board
from harness.spec import TrialSpec
from harness.study import Ablation, Budget
from harness.tracking import MlflowTracker

PLAN = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(32,), batch_size=256),
    arms={"bce": {}, "mse": {"likelihood": "mse"}, "z=3": {"latent": 3}, "z=4": {"latent": 4}},
    budgets={"default": Budget(epochs=40, seeds=range(3), evaluation="validation")},
)


class Announced(InProcess):
    """Says when it is at work."""

    def submit(self, job: Job) -> None:
        super().submit(job)
        print("training", job.specs[0].id, flush=True)


def main() -> None:
    """Take part in the study until it is done."""
    storage, scratch = sys.argv[1], Path(sys.argv[2])
    cells = PLAN.cells("default")
    store = TrialStore("shared.default", ["minimize"], database(storage), shared=True)
    queue = AblationQueue(store, cells, lambda metrics: metrics["validation/squared_error"])
    driver = driver_of(queue, MlflowTracker("shared", "default", ""), scratch, Announced, ALONE)
    driver.board, driver.headline = Board(Console()), "validation/squared_error"
    driver.reconcile()
    queue.prepare()
    driver.run()
    store.close()
    print("done", flush=True)


if __name__ == "__main__":
    main()
