"""Checks of a GPU: every likelihood and activation trains as by single operations, no step waits, and steps are fast enough.

They need torch, torchvision, numpy, scipy and scikit-learn, a C compiler for Triton, and MNIST in the data folder; neither MLflow
nor Optuna. They take about 5 minutes, most of which is compiling.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from rich.console import Console

from harness import devices, metrics
from harness.data import Data, load_dataset
from harness.errors import UserError
from harness.models.activations import ACTIVATIONS
from harness.models.likelihoods import LIKELIHOODS
from harness.spec import TrialSpec
from harness.training.batches import CHUNK
from harness.training.cohort import Cohort
from harness.training.step import BoundStep

ROUNDS = 10
STEPS = 256  # of a timed round
SAME = 1e-3  # the largest difference between two ways of training, relative to the ELBO


@dataclass(frozen=True)
class Goal:
    """A step time that must not be exceeded.

    Attributes:
        name: of the goal.
        specs: the trials that train together.
        at_most: microseconds per step of one trial.
    """

    name: str
    specs: Sequence[TrialSpec]
    at_most: float


@dataclass
class _Report:
    """The lines of the checks so far, and those that were missed."""

    console: Console
    missed: list[str] = field(default_factory=list)

    def line(self, ok: bool, words: str) -> None:
        """Print the outcome of a check."""
        self.console.print(f"{'ok    ' if ok else 'MISSED'} {words}", highlight=False, markup=False, soft_wrap=True)
        if not ok:
            self.missed.append(words)


def check(device: str, console: Console) -> int:
    """Check everything on `device`. Return 1 if something is missed, else 0.

    Raises:
        UserError: the device is no GPU.
    """
    torch_device = devices.named(device)
    if not devices.can_capture(torch_device):
        raise UserError(f"these checks are for a CUDA GPU, got {device!r}\nfor a CPU: make bench")
    started = time.monotonic()
    console.print(f"{devices.describe(torch_device)}, torch {torch.__version__}", highlight=False)
    report, data = _Report(console), load_dataset("mnist", say=console.print)
    base = TrialSpec(epochs=1)
    _sync_free(report, data, torch_device, base)
    single_output = [name for name in LIKELIHOODS if LIKELIHOODS[name].params == 1]
    cohorts = [[base.derive(activation=a) for a in ACTIVATIONS], [base.derive(likelihood=name) for name in single_output]]
    for specs in cohorts + [[base.derive(likelihood=name)] for name in LIKELIHOODS if name not in single_output]:
        _parity(report, data, torch_device, specs)
    lanes = [base.derive(seed=s) for s in range(64)]
    tf32 = [s.derive(precision="tf32") for s in lanes]
    for goal in (Goal("one trial", [base], 120), Goal("64 lanes, fp32", lanes, 13), Goal("64 lanes, TF32", tf32, 8)):
        _time(report, data, torch_device, goal)
    console.print(f"{len(report.missed)} missed, in {time.monotonic() - started:.0f} s", highlight=False)
    return int(bool(report.missed))


def _sync_free(report: _Report, data: Data, device: torch.device, spec: TrialSpec) -> None:
    """Check that a chunk of captured steps never waits for the device, by torch's own alarm for such operations."""
    bound = _ready(Cohort([spec, spec.derive(seed=1)], data, device, compiled=True), 2 * CHUNK)
    try:
        with devices.no_waiting():
            bound.again(CHUNK, lambda steps: None)
    except RuntimeError as fault:
        report.line(False, f"a chunk waits for the device: {fault}")
    else:
        report.line(True, f"a chunk of {CHUNK} steps never waits for the device")


def _parity(report: _Report, data: Data, device: torch.device, specs: Sequence[TrialSpec]) -> None:
    """Check the test ELBO after an epoch of trials trained together and captured against alone and by single operations."""
    together = Cohort(specs, data, device, compiled=True)
    together.run_epoch()
    for spec in specs:
        alone = Cohort([spec], data, device)
        alone.run_epoch()
        if spec not in together.specs or not alone.specs:
            report.line(False, f"{spec.likelihood}, {spec.activation}: {together.failures or alone.failures}")
            continue
        together_elbo, alone_elbo = (_elbo(c, spec) for c in (together, alone))
        difference = abs(together_elbo / alone_elbo - 1)
        words = (
            f"{spec.likelihood}, {spec.activation}: test ELBO {together_elbo:.3f}, alone {alone_elbo:.3f}, apart {difference:.1e}"
        )
        report.line(difference <= SAME, f"{words} (compiled in {together.compile_s:.0f} s, {len(specs)} lanes)")


def _elbo(cohort: Cohort, spec: TrialSpec) -> float:
    """Return the test ELBO of a trial of a cohort, from one draw of z per image."""
    vae = cohort.trained(spec)
    x = metrics.model_inputs(spec, cohort.data.test)
    return metrics.estimate_elbo(vae, metrics.native(vae, x), samples=1).elbo


def _time(report: _Report, data: Data, device: torch.device, goal: Goal, steps: int = STEPS) -> None:
    """Check the time of a step of these trials against the goal, over rounds of so many steps."""
    cohort = Cohort(goal.specs, data, device, compiled=True)
    bound = _ready(cohort, steps)
    step = _median(lambda: bound.again(CHUNK, lambda steps: None), device) / CHUNK
    epoch = _median(lambda: cohort.run_steps(steps), device, 3) / steps
    us_per_trial = 1e6 / len(goal.specs)
    step_us, epoch_us = us_per_trial * step, us_per_trial * epoch
    words = f"{goal.name}: {step_us:.1f} us per trial-step, goal {goal.at_most:g}; with orders and noise drawn {epoch_us:.1f}"
    report.line(step_us <= goal.at_most, words)


def _ready(cohort: Cohort, steps: int) -> BoundStep:
    """Return the cohort's program after this many steps.

    Raises:
        ValueError: the cohort is not compiled.
    """
    cohort.run_steps(steps)
    if cohort.bound is None:
        raise ValueError("the cohort is not compiled")
    return cohort.bound


def _median(run: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """Return the median seconds of a call, by the device's clock."""

    def times() -> Iterable[float]:
        for _ in range(rounds):
            timer = devices.StepTimer(device)
            run()
            timer.mark()
            yield timer.seconds()[0]

    run()
    return statistics.median(times())
