"""A driver that asks for points of a shared search and tells made-up values, as a program: python asker.py POINTS SAMPLER ..."""

import math
import sys
import time

from harness.queue import SearchQueue, TrialStore, database
from harness.spec import TrialSpec
from harness.study import Real, Search, SearchBudget


def plan(sampler: str, points: int) -> Search:
    return Search(
        base=TrialSpec(dataset="digits", network="mlp"),
        space={"learning_rate": Real(1e-5, 1.0, log=True), "beta": Real(0.1, 10.0, log=True)},
        objectives=("elbo/validation",),
        sampler=sampler,
        budgets={"default": SearchBudget(trials=points, epochs=3)},
    )


def store(sampler: str) -> TrialStore:
    return TrialStore(f"asked.{sampler}", ["maximize"], database(), shared=True)


def work(sampler: str, points: int) -> None:
    """Take part until all points are over."""
    queue = SearchQueue(store(sampler), plan(sampler, points), "default", 1)
    queue.prepare()
    while True:
        assignments = queue.take(1, lambda cell: cell.spec.cohort)
        for assignment in assignments:
            time.sleep(0.05)  # the others ask meanwhile
            queue.complete(assignment, {"elbo/validation": -100 - abs(math.log10(assignment.cell.spec.learning_rate) + 2)})
        if not assignments:
            if not queue.busy():
                return
            time.sleep(0.02)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        work(name, int(sys.argv[1]))
