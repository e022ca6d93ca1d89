"""The one door to what Optuna keeps to itself. Tried with Optuna 5.0 (docs/log.md)."""

from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import HyperbandPruner
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial


def storage_of(study: optuna.Study) -> BaseStorage:
    """Return the storage that a study talks with, its cache included."""
    return study._storage


def study_id(study: optuna.Study) -> int:
    """Return a study's id in its storage."""
    return study._study_id


def trial_id(trial: FrozenTrial) -> int:
    """Return a trial's id in its storage, which is not its number."""
    return trial._trial_id


def stale_trials(database: RDBStorage, study: optuna.Study) -> set[int]:
    """Return the ids of RUNNING trials whose last heartbeat is older than the grace period."""
    return set(database._get_stale_trial_ids(study._study_id))


def make_brackets(pruner: HyperbandPruner) -> None:
    """Let a pruner make its brackets now: a sampler, which learns from one bracket only, has none before the first report."""
    pruner._try_initialization(None)


class Sobol(optuna.samplers.QMCSampler):
    """The point of a Sobol sequence that a trial's number says; Optuna counts in the storage, where a kill skips a point."""

    number = 0

    def _find_sample_id(self, study: optuna.Study, search_space: Mapping[str, BaseDistribution]) -> int:
        return self.number
