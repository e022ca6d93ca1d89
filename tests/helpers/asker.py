"""Drivers that ask for points of a shared search and tell made-up values, as a program: python asker.py DRIVERS POINTS SAMPLER ...

They are forked where everything is imported already. Ends with 1 if one of them has failed.
"""

import math
import os
import sys
import time
from pathlib import Path

from cold_starts import fork

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
            time.sleep(0.1)


def drive(samplers: list[str], points: int) -> None:
    """One driver: the searches one after another."""
    for name in samplers:
        work(name, points)


if __name__ == "__main__":
    count, points, samplers = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    children = [fork(lambda: drive(samplers, points), Path("/dev/stderr")) for _ in range(count)]
    ended = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(ended))
