"""All that the trial store holds of a study, for those that check it. A SQLite file is read from a copy: nothing is written."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from harness import paths
from harness.queue.knowledge import trial_uri
from harness.stores import addresses, files


@dataclass(frozen=True, kw_only=True)
class TrialOnRecord:
    """A trial as it stands in the store.

    Attributes:
        store: the name of the trial store.
        number: of the trial.
        state: of the trial, in Optuna's words.
        cell: the id of its spec; empty for a trial of a search, which has one per seed.
        runs: the ids of its runs, by index of the seed.
        manifests: the digests of their manifests, likewise.
        values: the values that the trial is judged by, by index of the seed; of a trial that is over.
        was: the trial's number when each was begun, likewise, if it is another now: its store was lost.
        told: what Optuna was told of a trial that is over: of one of a search the mean over its seeds.
        params: the point of a trial of a search, by parameter.
        given_up: the reason if it failed for good, else empty.
        replaced: True if it was queued again under another number.
    """

    store: str
    number: int
    state: str
    cell: str
    runs: Mapping[int, str]
    manifests: Mapping[int, str]
    values: Mapping[int, Sequence[float]]
    was: Mapping[int, str] = field(default_factory=dict)
    told: Sequence[float] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    given_up: str = ""
    replaced: bool = False

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"trial {self.number} of {self.store}"


def is_store_of(name: str, study: str, budget: str) -> bool:
    """Return whether this is the name of a trial store of a study and budget: of its judged arms, or of its search."""
    return name == f"{study}.{budget}" or name.startswith(f"{study}.{budget}.")


def stores_on_record(study: str, budget: str, storage: str = "") -> tuple[list[TrialOnRecord], dict[str, Mapping[str, Any]]]:
    """Return all trials of a study and budget, of its search and of its judged arms, and the notes of each of their stores.

    Raises:
        UserError: `storage` is no PostgreSQL URI.
        MachineError: the store cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        if storage:
            uri = trial_uri(storage)
        elif (path := paths.mlruns() / "optuna.db").exists():
            uri = addresses.sqlite_uri(files.snapshot(path, Path(folder)))
        else:
            return [], {}
        opened = optuna.storages.RDBStorage(uri)
        try:
            names = [name for name in optuna.get_all_study_names(opened) if is_store_of(name, study, budget)]
            studies = {name: optuna.load_study(study_name=name, storage=opened) for name in names}
            trials = []
            for name, found in studies.items():
                again = [t.user_attrs.get("again") for t in found.trials]
                trials += [_trial(name, t, replaced=t.number in again) for t in found.trials]
            return trials, {name: found.user_attrs for name, found in studies.items()}
        finally:
            opened.remove_session()
            opened.engine.dispose()


def _trial(store: str, t: FrozenTrial, *, replaced: bool) -> TrialOnRecord:
    """Return Optuna's trial as ours."""
    values = {part: _numbers(value) for part, value in _parts(t, "values").items()}
    if "cell" in t.user_attrs and t.values is not None:
        values = {0: t.values}
    return TrialOnRecord(
        store=store,
        number=t.number,
        state=t.state.name,
        cell=str(t.user_attrs.get("cell", "")),
        runs=_parts(t, "run"),
        manifests=_parts(t, "manifest"),
        was=_parts(t, "was"),
        values=values,
        told=t.values or (),
        params={} if "cell" in t.user_attrs else t.params,
        given_up=str(t.user_attrs.get("failure", "")) if t.user_attrs.get("final") else "",
        replaced=replaced,
    )


def _parts(t: FrozenTrial, kind: str) -> dict[int, str]:
    """Return what is stored of a trial under `kind`, by index of the seed: `run` for a cell of an ablation, `run.0` in a search."""
    plain = {0: str(t.user_attrs[kind])} if t.user_attrs.get(kind) else {}
    numbered = {k.removeprefix(f"{kind}."): v for k, v in t.user_attrs.items() if k.startswith(f"{kind}.") and v}
    return plain | {int(part): str(v) for part, v in numbered.items() if re.fullmatch("[0-9]{1,9}", part)}


def _numbers(text: str) -> list[float]:
    """Return the numbers of a JSON list, as the store has the values of a seed; none if it is something else."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return values if isinstance(values, list) and all(isinstance(v, int | float) for v in values) else []
