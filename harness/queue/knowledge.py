"""What is known of trials beyond the plan of one study: results by arm in a whole database, earlier trials, and stored notes."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from harness import paths
from harness.queue.store import TrialStore, database


def known_results(storage: Any, store: str, arms: Mapping[str, Collection[str]], has_rows: Callable[[str], bool]) -> dict[str, int]:
    """Return how many results of each arm can be known, by its name, whatever study of a database they are of.

    Args:
        storage: Optuna's, or its URI.
        store: the name of the study's trial store. A trial of it counts by the arm's name too, whatever the arm was then.
        arms: the ids of the trials of each arm, by its name.
        has_rows: returns whether a run that was begun and has not finished has an epoch on record, which anybody may look at.
    """
    known: dict[str, set[str]] = {arm: set() for arm in arms}
    for name in optuna.get_all_study_names(storage):
        own = name == store
        for t in optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False):
            cell, run = t.user_attrs.get("cell", ""), t.user_attrs.get("run", "")
            if t.state == TrialState.COMPLETE or (own and run and has_rows(run)):
                for arm, cells in arms.items():
                    if cell in cells or (own and t.user_attrs.get("arm") == arm):
                        known[arm].add(cell)
    return {arm: len(cells) for arm, cells in known.items()}


def completed_runs(store: TrialStore) -> dict[str, str]:
    """Return the run id by cell id of every COMPLETE trial, whether it is in the present plan or was in an earlier one."""
    complete = store.trials(TrialState.COMPLETE)
    return {t.user_attrs["cell"]: t.user_attrs["run"] for t in complete if t.user_attrs.get("run") and t.user_attrs.get("cell")}


def stored_notes(name: str, storage: str = "") -> Mapping[str, Any]:
    """Return the notes of the trial store of this name; none if there is no such store. Nothing is written.

    Raises:
        MachineError: the database cannot be used.
    """
    try:
        notes: Mapping[str, Any] = optuna.load_study(study_name=name, storage=trial_uri(storage)).user_attrs
    except KeyError:
        return {}
    return notes


def trial_uri(storage: str = "") -> str:
    """Return the URI of the trial database for reading; that of an empty one in memory if there is no file yet."""
    if not storage and not (paths.mlruns() / "optuna.db").exists():
        return "sqlite://"
    return database(storage)
