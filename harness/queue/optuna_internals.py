"""All uses of private names of Optuna, tried with Optuna 5.0 (docs/log.md)."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import HyperbandPruner
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial


def storage_of(study: optuna.Study) -> BaseStorage:
    """Return the storage that a study reads and writes, including its cache."""
    return study._storage


def _changing(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of a storage which makes a `SoleStorage` read its trials again."""

    @wraps(method)
    def changed(storage: "SoleStorage", *arguments: Any, **named: Any) -> Any:
        try:
            return method(storage, *arguments, **named)
        finally:  # what failed may have been written nonetheless
            storage.newest = object()

    return changed


class SoleStorage(_CachedStorage):  # type: ignore[misc]  # as of Sobol
    """A storage with a cache whose trials this process alone changes: they are read again only after it has changed one.

    Optuna's own cache reads all trials that are not over at each look, for another process may have changed them.

    Attributes:
        newest: another object after each change.
        read: that of the last reading, by study.
    """

    def __init__(self, database: RDBStorage) -> None:
        super().__init__(database)
        self.newest = object()
        self.read: dict[int, object] = {}

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        newest = self.newest
        if self.read.get(study_id) is not newest:
            super()._read_trials_from_remote_storage(study_id)
            self.read[study_id] = newest

    create_new_trial = _changing(_CachedStorage.create_new_trial)
    set_trial_param = _changing(_CachedStorage.set_trial_param)
    set_trial_state_values = _changing(_CachedStorage.set_trial_state_values)
    set_trial_intermediate_value = _changing(_CachedStorage.set_trial_intermediate_value)
    set_trial_user_attr = _changing(_CachedStorage.set_trial_user_attr)
    set_trial_system_attr = _changing(_CachedStorage.set_trial_system_attr)


def study_id(study: optuna.Study) -> int:
    """Return a study's id in its storage."""
    return int(study._study_id)


def trial_id(trial: FrozenTrial) -> int:
    """Return a trial's id in its storage, which is not its number."""
    return int(trial._trial_id)


def stale_trials(database: RDBStorage, study: optuna.Study) -> set[int]:
    """Return the ids of RUNNING trials whose last heartbeat is older than the grace period."""
    return set(database._get_stale_trial_ids(study._study_id))


def make_brackets(pruner: HyperbandPruner) -> None:
    """Make a Hyperband pruner create its brackets now.

    By itself it does so at the first report only, and a sampler, which learns from the trials of one bracket, needs them before.
    """
    pruner._try_initialization(None)


class Sobol(optuna.samplers.QMCSampler):  # type: ignore[misc]  # mypy skips optuna (pyproject.toml): its classes are Any
    """A sampler that gives the trial of number n the n-th point of a Sobol sequence.

    Optuna's own counts points in the storage, where a kill skips one.

    Attributes:
        number: the number of the trial to sample for.
    """

    number = 0

    def _find_sample_id(self, study: optuna.Study, search_space: Mapping[str, BaseDistribution]) -> int:
        """Return the index of the point in the sequence."""
        return self.number
