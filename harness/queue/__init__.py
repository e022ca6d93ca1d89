"""Which trials are to be run, handed out and told, with Optuna as the memory.

In come a study's plan and what became of its runs; out come assignments for the driver and, for a search, points to try. Only a
driver talks to a queue; what trains knows nothing of it. MLflow and torch must not enter.
"""

from harness.queue.ablation_queue import AblationQueue
from harness.queue.pareto import SearchTrial
from harness.queue.protocol import ATTEMPTS, LOST, Assignment, Outcome, Pruning, Repairs, TrialQueue
from harness.queue.search_queue import SearchQueue
from harness.queue.store import TrialStore, database, driver_lock

__all__ = [
    "ATTEMPTS",
    "LOST",
    "AblationQueue",
    "Assignment",
    "Outcome",
    "Pruning",
    "Repairs",
    "SearchQueue",
    "SearchTrial",
    "TrialQueue",
    "TrialStore",
    "database",
    "driver_lock",
]
