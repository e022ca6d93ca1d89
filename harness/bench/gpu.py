"""What a GPU must show: every likelihood and activation trains as on single operations, nothing waits, and the steps are fast.

Needs torch, torchvision, numpy, scipy and scikit-learn, a C compiler for Triton, and MNIST in the data folder; neither MLflow nor
Optuna. About 5 minutes, most of them compiling.
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
SAME = 1e-3  # what may lie between two ways of training, relative to the ELBO


@dataclass(frozen=True)
class Goal:
    """A step time of one trial in microseconds, and what it must not exceed."""

    name: str
    specs: Sequence[TrialSpec]
    at_most: float


@dataclass
class _Report:
    console: Console
    missed: list[str] = field(default_factory=list)

    def line(self, ok: bool, words: str) -> None:
        self.console.print(f"{'ok    ' if ok else 'MISSED'} {words}", highlight=False, markup=False, soft_wrap=True)
        if not ok:
            self.missed.append(words)


def check(device: str, console: Console) -> int:
    """Check all of it on `device`; returns 1 if something is missed.

    Raises:
        UserError: a device that is no GPU.
    """
    where = devices.device(device)
    if not devices.can_capture(where):
        raise UserError(f"these checks are for a CUDA GPU, got {device!r}\nfor a CPU: make bench")
    started = time.monotonic()
    console.print(f"{devices.describe(where)}, torch {torch.__version__}", highlight=False)
    report, data = _Report(console), load_dataset("mnist", say=console.print)
    base = TrialSpec(epochs=1)
    _sync_free(report, data, where, base)
    one = [name for name in LIKELIHOODS if LIKELIHOODS[name].params == 1]
    programs = [[base.derive(activation=a) for a in ACTIVATIONS], [base.derive(likelihood=name) for name in one]]
    for specs in programs + [[base.derive(likelihood=name)] for name in LIKELIHOODS if name not in one]:
        _parity(report, data, where, specs)
    many = [base.derive(seed=s) for s in range(64)]
    tf32 = [s.derive(precision="tf32") for s in many]
    for goal in (Goal("one trial", [base], 120), Goal("64 lanes, fp32", many, 13), Goal("64 lanes, TF32", tf32, 8)):
        _time(report, data, where, goal)
    console.print(f"{len(report.missed)} missed, in {time.monotonic() - started:.0f} s", highlight=False)
    return int(bool(report.missed))


def _sync_free(report: _Report, data: Data, where: torch.device, spec: TrialSpec) -> None:
    """A chunk of captured steps, under torch's own alarm for operations that wait for the device."""
    bound = _ready(Cohort([spec, spec.derive(seed=1)], data, where, compiled=True), 2 * CHUNK)
    try:
        with devices.no_waiting():
            bound.again(CHUNK, lambda steps: None)
    except RuntimeError as fault:
        report.line(False, f"a chunk waits for the device: {fault}")
    else:
        report.line(True, f"a chunk of {CHUNK} steps never waits for the device")


def _parity(report: _Report, data: Data, where: torch.device, specs: Sequence[TrialSpec]) -> None:
    """Trained together and captured against alone and by single operations: the test ELBO after an epoch."""
    together = Cohort(specs, data, where, compiled=True)
    together.run_epoch()
    for spec in specs:
        alone = Cohort([spec], data, where)
        alone.run_epoch()
        if spec not in together.specs or not alone.specs:
            report.line(False, f"{spec.likelihood}, {spec.activation}: {together.failures or alone.failures}")
            continue
        ours, theirs = (_elbo(c, spec) for c in (together, alone))
        off = abs(ours / theirs - 1)
        words = f"{spec.likelihood}, {spec.activation}: test ELBO {ours:.3f}, alone {theirs:.3f}, apart {off:.1e}"
        report.line(off <= SAME, f"{words} (compiled in {together.compile_s:.0f} s, {len(specs)} lanes)")


def _elbo(cohort: Cohort, spec: TrialSpec) -> float:
    vae = cohort.trained(spec)
    x = metrics.model_inputs(spec, vae, cohort.data.test)
    return metrics.estimate_elbo(vae, metrics.native(vae, x), samples=1).elbo


def _time(report: _Report, data: Data, where: torch.device, goal: Goal) -> None:
    cohort = Cohort(goal.specs, data, where, compiled=True)
    bound = _ready(cohort, STEPS)
    step = _median(lambda: bound.again(CHUNK, lambda steps: None), where) / CHUNK
    epoch = _median(lambda: cohort.run_steps(STEPS), where, 3) / STEPS
    each = 1e6 / len(goal.specs)
    words = (
        f"{goal.name}: {each * step:.1f} us per trial-step, goal {goal.at_most:g}; with orders and noise drawn {each * epoch:.1f}"
    )
    report.line(each * step <= goal.at_most, words)


def _ready(cohort: Cohort, steps: int) -> BoundStep:
    """The cohort's program after an epoch of so many steps."""
    cohort.run_steps(steps)
    if cohort.bound is None:
        raise ValueError("the cohort is not compiled")
    return cohort.bound


def _median(run: Callable[[], object], where: torch.device, rounds: int = ROUNDS) -> float:
    """Seconds of a call, by the device's clock."""

    def times() -> Iterable[float]:
        for _ in range(rounds):
            timer = devices.StepTimer(where)
            run()
            timer.mark()
            yield timer.seconds()[0]

    run()
    return statistics.median(times())
