"""A driver that asks for points of a shared search and tells made-up values, as a program: python asker.py SAMPLER POINTS."""

import math
import sys
import time

from harness.desk import Ledger, SearchDesk, database
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


def ledger(sampler: str) -> Ledger:
    return Ledger(f"asked.{sampler}", ["maximize"], database(), shared=True)


def main() -> None:
    """Work until all points are over."""
    sampler, points = sys.argv[1], int(sys.argv[2])
    desk = SearchDesk(ledger(sampler), plan(sampler, points), "default", 1)
    desk.prepare()
    while True:
        tickets = desk.take(1, lambda cell: cell.spec.cohort)
        for ticket in tickets:
            time.sleep(0.05)  # the others ask meanwhile
            desk.tell(ticket, {"elbo/validation": -100 - abs(math.log10(ticket.cell.spec.learning_rate) + 2)})
        if not tickets:
            if not desk.busy():
                return
            time.sleep(0.02)


if __name__ == "__main__":
    main()
