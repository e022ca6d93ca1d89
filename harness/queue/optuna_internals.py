"""All uses of private names of Optuna, tried with Optuna 5.0 (docs/log.md)."""

from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import HyperbandPruner
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial


def storage_of(study: optuna.Study) -> BaseStorage:
    """Return the storage that a study reads and writes, including its cache."""
    return study._storage


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
