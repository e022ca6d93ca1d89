"""What the checks of a GPU share: their setting, a cohort and its program by way of execution, and a clock."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter

import torch

from harness import devices
from harness.bench.gpu.record import Row, digits
from harness.data import Data, load_dataset
from harness.spec import CHUNK, TrialSpec
from harness.training.cohort import Cohort
from harness.training.step import BoundStep, Execution

EAGER: Execution = "eager"
GRAPH: Execution = "graph"
COMPILED: Execution = "compiled"
BLOCKS = 5  # of calls, whose median is the time of one

Case = tuple[str, Callable[[], list[Row]]]


@dataclass(frozen=True)
class Setting:
    """What a step is run on.

    Attributes:
        device_name: of the device, as in `devices.named`.
        toy: True to take everything at toy size and to judge no time.
        out: the folder of the results.
        scratch: a folder of the step's own, which is deleted after it.
    """

    device_name: str
    toy: bool
    out: Path
    scratch: Path

    @property
    def device(self) -> torch.device:
        """The device."""
        return devices.named(self.device_name)

    @property
    def base(self) -> TrialSpec:
        """The trial that all others are derived from: the reference model on MNIST."""
        if self.toy:
            return TrialSpec(dataset="digits", network="mlp", hidden=(32,), batch_size=16, epochs=1)
        return TrialSpec(epochs=1)

    @cached_property
    def data(self) -> Data:
        """The data set of `base`."""
        return load_dataset(self.base.dataset, arguments=self.base.dataset_args)

    @property
    def steps(self) -> int:
        """The steps of a shortened epoch."""
        return 2 * CHUNK if self.toy else 8 * CHUNK

    def lanes(self, count: int, precision: str = "fp32") -> list[TrialSpec]:
        """Return so many trials that differ in their seeds only."""
        return [self.base.derive(seed=seed, precision=precision) for seed in range(count)]

    @property
    def warm_s(self) -> float:
        """The least seconds of calls before a measurement."""
        return 0.0 if self.toy else 0.3

    @property
    def work_s(self) -> float:
        """The least seconds of calls that a measurement takes."""
        return 0.01 if self.toy else 1.0

    def seconds(self, run: Callable[[], object]) -> float:
        """Return the seconds of a call."""
        return seconds_per_call(run, self.device, self.warm_s, self.work_s)

    def judged(self, name: str, number: float, unit: str, goal: float, more: str = "") -> Row:
        """Return the row of a time that must not exceed a goal; at toy size it is not judged."""
        words = f"{digits(number)} {unit}{f'; {more}' if more else ''}"
        return Row(name, words, f"at most {goal:g} {unit}", None if self.toy else number <= goal)


def cohort_of(setting: Setting, specs: Sequence[TrialSpec], execution: Execution) -> Cohort:
    """Return a cohort of these trials whose steps are taken in this way."""
    return Cohort(specs, setting.data, setting.device, execution)


def ready(cohort: Cohort) -> BoundStep:
    """Return a cohort's program after two chunks of steps. A whole chunk is in its buffers.

    Raises:
        RuntimeError: the cohort has no program, or a trial met a value that is not finite.
    """
    cohort.run_steps(2 * CHUNK)
    if cohort.bound is None or cohort.failures:
        raise RuntimeError(f"no program to measure: {cohort.failures or 'the steps were taken by single operations'}")
    assert isinstance(cohort.bound, BoundStep)
    return cohort.bound


def again(bound: BoundStep, steps: int = CHUNK) -> Callable[[], None]:
    """Return a function that takes the first steps of the chunk in a program's buffers again."""
    return lambda: bound.again(steps, lambda taken: None)


def seconds_per_call(run: Callable[[], object], device: torch.device, warm_s: float, work_s: float) -> float:
    """Return the seconds of a call, on the wall with a wait for the device after each block of calls; median of BLOCKS blocks.

    Args:
        run: the call.
        device: that it works on.
        warm_s: the least seconds of calls before.
        work_s: the least seconds of calls, all blocks together.
    """

    def spent(calls: int) -> float:
        devices.wait(device)
        started = perf_counter()
        for _ in range(calls):
            run()
        devices.wait(device)
        return perf_counter() - started

    calls, seconds = 1, spent(1)
    while seconds < warm_s:
        calls *= 2
        seconds = spent(calls)
    blocks = [0.0]
    while sum(blocks) < work_s:
        per_call = max(seconds, 1e-9) / calls
        calls = math.ceil(1.1 * work_s / BLOCKS / per_call)
        blocks = [spent(calls) for _ in range(BLOCKS)]
        seconds = statistics.median(blocks)
    return seconds / calls


def first_line(fault: BaseException) -> str:
    """Return the first line of an error's message, or its kind if it has none."""
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__)
