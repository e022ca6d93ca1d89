"""What trials of a study took on this machine before, or are stated to take: what is expected before one has trained."""

import math
import os
import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING

from harness import paths, resources
from harness.errors import HarnessError
from harness.runner.costs import EVALUATION_S, NEXT_S, Before
from harness.scores import EXACT_LATENTS
from harness.scores.rows import TRAIN_S
from harness.spec import TrialSpec

if TYPE_CHECKING:
    from harness.tracking import RunOnRecord

# Worker seconds of a trial of the reference model with bce on MNIST beside its training, and of an epoch: of 36 trials of 6 and of
# 50 epochs on two cores (README.md, "How fast?"), less what the other likelihoods among them take more.
STATED_TRIAL_S, STATED_EPOCH_S = 5.0, 1.05
# How many times as long an epoch and an evaluation of others take; once, where none is given. Rounded from a few runs of two
# workers of an Intel Xeon with AVX-512 and two cores, networks with 20 latents among them.
TIMES: Mapping[str, tuple[float, float]] = {
    "continuous_bernoulli": (1.25, 1.4),
    "gaussian_per_pixel": (1.6, 1.35),
    "discretized_logistic": (1.6, 1.4),
    "categorical": (13.0, 5.5),
    "beta_binomial": (14.5, 4.0),
    "logistic_mixture": (25.0, 5.5),
    "mlp": (1.0, 1.4),
    "conv": (9.5, 4.0),
    "resnet": (15.0, 4.5),
}
MORE_LATENTS = 1.3  # times as long an evaluation takes with more latents than log p(x) is exact for
STATED_FOR = {
    "network": ("reference", "mlp", "conv", "resnet"),
    "dataset": ("mnist", "fashion_mnist", "kmnist"),
    "evaluation": ("quick",),
}


def times(spec: TrialSpec) -> tuple[float, float]:
    """Return how many times as long an epoch and an evaluation of a trial take as those of the reference model, as it is stated."""
    epochs, evaluations = zip(*(TIMES.get(name, (1.0, 1.0)) for name in (spec.likelihood, spec.network)), strict=True)
    return math.prod(epochs), math.prod(evaluations) * (MORE_LATENTS if spec.latent > EXACT_LATENTS else 1.0)


def runs_here(device: str, study: str = "", budget: str = "default") -> "dict[tuple[str, str], list[RunOnRecord]]":
    """Return the runs that a device of this machine brought to an end, by study and budget; none if the store cannot be read.

    Those of a study and budget, or of all.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI") and not os.path.isfile(paths.mlruns() / "mlflow.db"):
        return {}
    from harness.tracking import runs_on_record  # with SciPy and SQLAlchemy

    here: dict[tuple[str, str], list[RunOnRecord]] = {}
    try:
        runs = runs_on_record(study, budget)
    except HarnessError:
        return {}
    machine = {"host": socket.gethostname(), "device": device}.items()
    for run in runs:
        if (run.status == "FINISHED" or run.pruned) and machine <= run.tags.items():
            here.setdefault((run.tags.get("study", ""), run.tags.get("budget", "")), []).append(run)
    return here


def is_stated(trials: Iterable[TrialSpec]) -> bool:
    """Return whether the stated rate is for such trials."""
    return all(getattr(spec, name) in STATED_FOR[name] for spec in trials for name in ("network", "dataset"))


def of_trials(study: str, budget: str, device: str, epochs: int, trials: Mapping[str, TrialSpec]) -> Before:
    """Return what trials of a study are expected to take: as those on record of this device, or the stated rate of a CPU.

    Args:
        study: its name.
        budget: its name.
        device: that they train on, in words.
        epochs: of a trial.
        trials: one of each kind.
    """
    runs = [r for r in runs_here(device, study, budget).get((study, budget), []) if r.status == "FINISHED"]
    trained, evaluated = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for run in runs:
        seconds = run.metrics.get(TRAIN_S.key, 0.0)
        trained[run.tags["arm"]].append(seconds / epochs)
        evaluated[run.tags["arm"]].append(max(0.0, (run.seconds or 0.0) - seconds - NEXT_S))
    if runs:
        return Before(_medians(trained), _medians(evaluated) if device == resources.cpu() else {})
    return stated(device, trials)


def stated(device: str, trials: Mapping[str, TrialSpec]) -> Before:
    """Return the stated rate of a CPU for such trials, by kind; nothing if there is none."""
    if device != resources.cpu() or not is_stated(trials.values()):
        return Before()
    by_kind = {kind: times(spec) for kind, spec in trials.items()}
    epoch_s = {kind: STATED_EPOCH_S * epoch for kind, (epoch, _) in by_kind.items()}
    return Before(epoch_s, times={kind: evaluation for kind, (_, evaluation) in by_kind.items()})


def stated_s(trials: Sequence[TrialSpec], epochs: int) -> float:
    """Return the worker seconds of a trial by the stated rate, from its start to its evaluation; the mean of these trials."""
    more = [EVALUATION_S["quick"] * (evaluation - 1) + epochs * STATED_EPOCH_S * epoch for epoch, evaluation in map(times, trials)]
    return STATED_TRIAL_S + fmean(more)


def _medians(by_kind: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each kind."""
    return {kind: median(values) for kind, values in by_kind.items()}
