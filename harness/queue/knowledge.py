"""What is known of trials beyond the plan of one study: results by arm in a whole database, earlier trials, and stored notes."""

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from harness import paths
from harness.plans import PlanRecord, read
from harness.queue.store import OPTUNA_SCHEMA, TrialStore, database
from harness.stores import servers


def known_results(
    storage: Any, store: str, record: PlanRecord, content: Mapping[str, Any], has_rows: Callable[[str], bool]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many results can be known of each arm of a study, by its name: of this study, and of others in the database.

    A trial is one of an arm's if it trains the same, with any seed, evaluation and version of own code; in this study also if its
    arm had the same name.

    Args:
        storage: Optuna's, or its URI.
        store: the name of the study's trial store.
        record: the plans that the study has stated so far.
        content: its present plan.
        has_rows: returns whether a run that was begun and has not finished has an epoch on record, which anybody may look at.
    """
    arms = record.trainings_with(content)
    own: dict[str, set[str]] = {arm: set() for arm in arms}
    others: dict[str, set[str]] = {arm: set() for arm in arms}
    here = _trainings(record, content)
    for name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        trainings = here | _trainings(read(study.user_attrs))
        for t in study.get_trials(deepcopy=False):
            cell, run = t.user_attrs.get("cell", ""), t.user_attrs.get("run", "")
            hit = {arm for arm, trained in arms.items() if trainings.get(cell) in trained}
            hit |= {t.user_attrs.get("arm", "")} & arms.keys() if name == store else set()
            if hit and (t.state == TrialState.COMPLETE or (run and has_rows(run))):
                for arm in hit:
                    (own if name == store else others)[arm].add(cell)
    return ({arm: len(own[arm]) for arm in arms}, {arm: len(others[arm] - own[arm]) for arm in arms})


def _trainings(record: PlanRecord, *more: Mapping[str, Any]) -> dict[str, str]:
    """Return what each trial of a study's plans trains, by the trial's id."""
    plans = [p.content for p in record.plans] if not record.faults else []
    return {cell: arm["training"] for plan in (*plans, *more) for arm in plan["arms"].values() for cell in arm["trials"].values()}


def failures_on_record(store: TrialStore) -> dict[str, str]:
    """Return the reasons of the trials that failed for good, with whatever code, and are not queued again, by cell id."""
    going = (TrialState.COMPLETE, TrialState.WAITING, TrialState.RUNNING)
    others = {t.user_attrs.get("cell") for t in store.trials(*going)}
    failed = [t.user_attrs for t in store.trials(TrialState.FAIL) if t.user_attrs.get("final") and t.user_attrs.get("cell")]
    return {kept["cell"]: kept.get("failure", "") for kept in failed if kept["cell"] not in others}


def completed_runs(store: TrialStore) -> dict[str, str]:
    """Return the run id by cell id of every COMPLETE trial, whether it is in the present plan or was in an earlier one."""
    complete = store.trials(TrialState.COMPLETE)
    return {t.user_attrs["cell"]: t.user_attrs["run"] for t in complete if t.user_attrs.get("run") and t.user_attrs.get("cell")}


def manifests(store: TrialStore) -> dict[str, str]:
    """Return the digest of the manifest by run id of every run whose result counts, of a search's pruned trials too."""
    digests: dict[str, str] = {}
    newest: dict[str, Mapping[str, Any]] = {}  # of a cell that was trained again, after its run was deleted, the last trial counts
    for t in store.trials(TrialState.RUNNING, TrialState.WAITING, TrialState.COMPLETE, TrialState.PRUNED):
        for part in [name.removeprefix("values.") for name in t.user_attrs if name.startswith("values.")]:
            digests[t.user_attrs.get(f"run.{part}", "")] = t.user_attrs.get(f"manifest.{part}", "")
        if t.state == TrialState.COMPLETE and t.user_attrs.get("cell"):
            newest[t.user_attrs["cell"]] = t.user_attrs
    digests |= {kept.get("run", ""): kept.get("manifest", "") for kept in newest.values()}
    return {run: digest for run, digest in digests.items() if run and digest}


def stored_notes(name: str, storage: str = "") -> Mapping[str, Any] | None:
    """Return the notes of the trial store of this name; None if there is no such store here. Nothing is written.

    Raises:
        MachineError: the database cannot be used.
    """
    try:
        notes: Mapping[str, Any] = optuna.load_study(study_name=name, storage=trial_uri(storage)).user_attrs
    except KeyError:
        return None
    return notes


def trial_uri(storage: str = "") -> str:
    """Return the URI of the trial database for reading; that of an empty one in memory if there is none yet. Nothing is written.

    Raises:
        UserError: `storage` is no PostgreSQL URI.
        MachineError: the database cannot be used.
    """
    if storage:
        there = servers.is_whole(servers.address(storage, "STORAGE"), OPTUNA_SCHEMA)
    else:
        there = (paths.mlruns() / "optuna.db").exists()
    return database(storage) if there else "sqlite://"
