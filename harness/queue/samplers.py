"""Optuna's samplers and pruners by the names that studies use. Their decisions depend on the trial store's history alone."""

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
from harness.study.space import Parameter, Suggest
from harness.study.strategy import Pruner


def _seed(root: str, number: int) -> int:
    """Return a seed that depends on a name and a number alone."""
    return int.from_bytes(hashlib.sha256(f"{root}/{number}".encode()).digest()[:4])


def _sobol(root: str, number: int) -> BaseSampler:
    """Return a sampler of the point `number` of a scrambled Sobol sequence."""
    sampler = optuna_internals.Sobol(
        scramble=True, seed=_seed(root, 0), warn_independent_sampling=False, warn_asynchronous_seeding=False
    )
    sampler.number = number
    return sampler


def _gp(root: str, number: int) -> BaseSampler:
    """Return a Gaussian-process sampler, for objectives with noise."""
    return optuna.samplers.GPSampler(seed=_seed(root, number), deterministic_objective=False, warn_independent_sampling=False)


def _tpe(root: str, number: int) -> BaseSampler:
    """Return a multivariate TPE sampler, which takes trials under way for bad ones."""
    return optuna.samplers.TPESampler(seed=_seed(root, number), multivariate=True, group=True, constant_liar=True)


SAMPLER_OF: Mapping[str, Callable[[str, int], BaseSampler]] = {
    "gp": _gp,
    "tpe": _tpe,
    "random": lambda root, number: optuna.samplers.RandomSampler(seed=_seed(root, number)),
    "qmc": _sobol,
    "nsga2": lambda root, number: optuna.samplers.NSGAIISampler(seed=_seed(root, number)),
}


def sampler(name: str, root: str, number: int) -> BaseSampler:
    """Return the sampler of this name for the trial `number` of the study `root`.

    It is made anew for each trial, so that it carries no state over, and seeded by the study's name and the trial's number.
    """
    with _stable():
        return SAMPLER_OF[name](root, number)


@contextmanager
def _stable() -> Iterator[None]:
    """Silence Optuna's warning that QMC, grouped TPE and the Wilcoxon pruner are experimental.

    A study records the version of Optuna that made it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def pruner(settings: Pruner | None, epochs: int) -> optuna.pruners.BasePruner:
    """Return the pruner with these settings for trials of so many epochs; without settings one that never prunes."""
    if settings is None:
        return optuna.pruners.NopPruner()
    match settings.name:
        case "asha":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=settings.first, reduction_factor=settings.factor)
        case "hyperband":
            hyperband = optuna.pruners.HyperbandPruner(
                min_resource=settings.first, max_resource=epochs, reduction_factor=settings.factor
            )
            optuna_internals.make_brackets(hyperband)
            return hyperband
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=settings.first)
        case _:
            with _stable():
                return optuna.pruners.WilcoxonPruner(p_threshold=settings.p, n_startup_steps=settings.first)


def ask(study: optuna.Study, name: str, point: Callable[[Suggest], object], count: int) -> Iterator[FrozenTrial]:
    """Ask the sampler `name` for further trials and yield them one after another, RUNNING and with their parameters.

    The parameters depend on the study's history and on the trials' numbers alone. The trials are made in a copy of the study in
    memory, from which the caller enters each as a whole, so that a kill leaves no half of one. WAITING trials count as under way.
    The Gaussian process is given all trials, and values no worse than a floor (`_floor`): by itself Optuna's leaves out trials that
    diverged or were pruned and samples there again, and one value of -10,000 would hide all differences between good ones.

    Args:
        study: the study with its history.
        name: the name of the sampler.
        point: a function that suggests all parameters of a trial by the function that it is called with.
        count: the number of trials.
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
    """Return a function that replaces bad or missing values of an objective by a floor.

    The floor is as far below the median of the complete trials as the best of them is above it, or mirrored if lower is better.
    """
    known: list[float] = [t.values[objective] for t in trials if t.state == TrialState.COMPLETE]
    best, middle = max(known) if higher else min(known), median(known)
    worst = middle - (best - middle)
    better: Callable[[float, float], float] = max if higher else min

    def floor(value: float | None) -> float:
        """Return the value, but no worse than the floor."""
        return worst if value is None else better(value, worst)

    return floor


def _suggest(trial: optuna.Trial, p: Parameter) -> Any:
    """Return a value of a parameter for a trial from its sampler."""
    if p.choices:
        return trial.suggest_categorical(p.name, p.choices)
    if p.whole:
        return trial.suggest_int(p.name, int(p.low), int(p.high), log=p.log)
    return trial.suggest_float(p.name, p.low, p.high, log=p.log)
