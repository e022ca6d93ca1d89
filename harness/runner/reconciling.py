"""The repair of what dead drivers have left, so that every result counts once."""

import os
import shutil
from collections.abc import Collection

from harness import paths
from harness.queue import TrialQueue, completed_runs
from harness.queue.store import GRACE_S
from harness.tracking import Tracker


def reconcile(queue: TrialQueue, tracker: Tracker, running: Collection[str] = ()) -> list[str]:
    """Settle what dead drivers have left of a queue's trials, and return what was done, in words.

    A second call finds nothing to do. `running` are the runs that this driver trains.
    """
    store = queue.store
    finished = tracker.finished_runs(store.name)
    repairs = queue.reconcile(tracker.look, finished)
    duplicates = finished - queue.runs()
    for run in duplicates:
        tracker.fail(run, "not counted: its trial went on in another run", killed=True)
    done = {cell for cell, run in completed_runs(store).items() if run in finished}  # others train again: their runs were deleted
    for device in (paths.mlruns() / "checkpoints").glob("*/"):
        for cell in done & set(os.listdir(own) if (own := device / store.name).is_dir() else ()):
            shutil.rmtree(own / cell, ignore_errors=True)  # its driver ended between the result and this
        for cell in done & set(os.listdir(device)):  # where earlier versions kept them
            shutil.rmtree(device / cell, ignore_errors=True)
    alive = {*running} | (queue.live_runs() if store.shared else set())
    closed = tracker.close_orphans(store.name, alive, GRACE_S if store.shared else 0)
    messages = []
    if repairs.adopted:
        messages.append(f"took over {_trials(repairs.adopted)} that had finished just before the last stop")
    cut_off = max(repairs.lost, closed)
    if cut_off:
        messages.append(f"{_trials(cut_off)} of an earlier start {'were' if cut_off > 1 else 'was'} cut off: run again")
    if duplicates:
        messages.append(f"{len(duplicates)} finished twice: counted once")
    return messages


def _trials(count: int) -> str:
    """Return a number of trials in words."""
    return f"{count} trial{'s' * (count != 1)}"
