"""Optuna's samplers and pruners by the names that studies use. What they say depends on the history in the ledger alone."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from statistics import median
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from harness.queue import optuna_internals
from harness.study.search import Pruner
from harness.study.space import Parameter, Suggest


def _seed(root: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{root}/{number}".encode()).digest()[:4])


def _sobol(root: str, number: int) -> BaseSampler:
    sampler = optuna_internals.Sobol(
        scramble=True, seed=_seed(root, 0), warn_independent_sampling=False, warn_asynchronous_seeding=False
    )
    sampler.number = number
    return sampler


def _gp(root: str, number: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=_seed(root, number), deterministic_objective=False, warn_independent_sampling=False)


def _tpe(root: str, number: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=_seed(root, number), multivariate=True, group=True, constant_liar=True)


SAMPLERS: Mapping[str, Callable[[str, int], BaseSampler]] = {
    "gp": _gp,
    "tpe": _tpe,
    "random": lambda root, number: optuna.samplers.RandomSampler(seed=_seed(root, number)),
    "qmc": _sobol,
    "nsga2": lambda root, number: optuna.samplers.NSGAIISampler(seed=_seed(root, number)),
}


def sampler(name: str, root: str, number: int) -> BaseSampler:
    """The sampler for one trial: made anew each time, so that it carries no state over, and seeded by the trial's number."""
    with _stable():
        return SAMPLERS[name](root, number)


@contextmanager
def _stable() -> Iterator[None]:
    """Optuna marks QMC, grouped TPE and the Wilcoxon pruner as experimental; which version made a study is on record with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def pruner(asked: Pruner | None, epochs: int) -> optuna.pruners.BasePruner:
    """The pruner of a search whose trials take so many epochs."""
    if asked is None:
        return optuna.pruners.NopPruner()
    match asked.name:
        case "asha":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=asked.first, reduction_factor=asked.factor)
        case "hyperband":
            found = optuna.pruners.HyperbandPruner(min_resource=asked.first, max_resource=epochs, reduction_factor=asked.factor)
            optuna_internals.make_brackets(found)
            return found
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=asked.first)
        case _:
            with _stable():
                return optuna.pruners.WilcoxonPruner(p_threshold=asked.p, n_startup_steps=asked.first)


def ask(study: optuna.Study, name: str, point: Callable[[Suggest], object], count: int) -> Iterator[FrozenTrial]:
    """Further trials for a study, one after another: their parameters, as a function of its history and of their numbers.

    They are asked for in a copy of the study in memory and then entered as a whole, so that a kill leaves no half of one.
    What waits counts as under way. A model of the values is told of all trials, and of bad ones only how bad within reason:
    Optuna's leaves out what diverged or was pruned and asks there again, and one value of -10,000 would hide all differences
    between good ones.
    """
    copy = optuna.create_study(
        study_name=study.study_name, directions=study.directions, pruner=study.pruner, sampler=optuna.samplers.RandomSampler()
    )
    trials = study.get_trials()
    known = any(t.state == TrialState.COMPLETE for t in trials)
    floors = [_floor(trials, i, d == StudyDirection.MAXIMIZE) for i, d in enumerate(study.directions)] if known else []
    for t in trials:
        if t.state == TrialState.WAITING:
            t.state, t.datetime_start = TrialState.RUNNING, t.datetime_start or datetime.now()
        if name == "gp" and t.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL) and known:
            t.state, t.values = TrialState.COMPLETE, [floor(t.values[i] if t.values else None) for i, floor in enumerate(floors)]
        copy.add_trial(t)
    for _ in range(count):
        copy.sampler = sampler(name, study.study_name, len(copy.trials))
        trial = copy.ask()
        point(partial(_suggest, trial))
        yield copy.trials[-1]


def _floor(trials: Sequence[FrozenTrial], objective: int, higher: bool) -> Callable[[float | None], float]:
    """Values no worse than as far below the median as the best is above it, where one that is missing counts as just that bad."""
    known = [t.values[objective] for t in trials if t.state == TrialState.COMPLETE]
    best, middle = max(known) if higher else min(known), median(known)
    worst = middle - (best - middle)
    worse = max if higher else min

    def floor(value: float | None) -> float:
        return worst if value is None else worse(value, worst)

    return floor


def _suggest(trial: optuna.Trial, p: Parameter) -> Any:
    if p.choices:
        return trial.suggest_categorical(p.name, p.choices)
    if p.whole:
        return trial.suggest_int(p.name, int(p.low), int(p.high), log=p.log)
    return trial.suggest_float(p.name, p.low, p.high, log=p.log)
