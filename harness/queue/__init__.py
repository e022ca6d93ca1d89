"""Queues of the trials that a study still has to run, kept in Optuna's storage.

In come a study's plan and the results of its runs; out come assignments for the driver and, for a search, points to try. Only a
driver uses a queue; the code that trains knows nothing of it. MLflow and torch must not enter.
"""

from harness.queue.ablation_queue import AblationQueue
from harness.queue.inspection import TrialOnRecord, is_store_of, stores_on_record
from harness.queue.knowledge import completed_runs, failures_on_record, known_results, manifests, stored_notes, trial_uri
from harness.queue.pareto import SearchTrial
from harness.queue.protocol import ATTEMPTS, LOST, Assignment, Outcome, Pruning, Repairs, TrialQueue
from harness.queue.restoring import adopt, lost_results, restore_plans
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
    "TrialOnRecord",
    "TrialQueue",
    "TrialStore",
    "adopt",
    "completed_runs",
    "database",
    "driver_lock",
    "failures_on_record",
    "is_store_of",
    "known_results",
    "lost_results",
    "manifests",
    "restore_plans",
    "stored_notes",
    "stores_on_record",
    "trial_uri",
]
