"""The steps of the checks of a GPU, by worth, and the program that takes one of them in a process of its own.

It is started as `python -m harness.bench.gpu.steps STEP OUT SCRATCH DEVICE full|toy`.
"""

import gc
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness import devices
from harness.bench.gpu import environment, parity, peers, record, study, times
from harness.bench.gpu.record import ROWS, Results, Row
from harness.bench.gpu.setting import Case, Setting, first_line
from harness.errors import HarnessError


@dataclass(frozen=True)
class Step:
    """A step of the checks.

    Attributes:
        name: of the step.
        title: what it shows.
        timeout_s: the most seconds that it may take.
        cases: yields what it measures, each with a name, in order.
    """

    name: str
    title: str
    timeout_s: float
    cases: Callable[[Setting], Iterator[Case]]


# By worth. First whether the card computes what it should, then the times that the goals are about. The two short studies come
# before peers and the other lanes: they are what a user waits for, and all parts must work together for them. Of what may be left
# out the full budget is last: it repeats the default's path at the greatest cost.
STEPS = (
    Step("environment", "versions, what compiling needs, the card", 40, environment.cases),
    Step("parity", "captured steps, not compiled, against float64 on the CPU", 100, parity.oracle_cases),
    Step("one_lane", "one trial's program: making it, kernels, step time", 90, times.one_lane_cases),
    Step("lanes", "step time by lanes and precision", 200, times.first_cases),
    Step("study_smoke", "the real command, smoke budget", 120, partial(study.study_cases, budget="smoke")),
    Step("study_default", "the real command, default budget", 150, partial(study.study_cases, budget="default")),
    Step("fused", "likelihoods in one program against each alone", 60, parity.fused_cases),
    Step("peers", "the same step as others take it", 90, peers.cases),
    Step("networks", "convolutional networks: parity, step time", 120, times.network_cases),
    Step("more_lanes", "step time, the other numbers of lanes", 90, times.rest_cases),
    Step("resume", "an arm that is killed and goes on, against one left alone", 150, study.resume_cases),
    Step("study_full", "the real command, full budget", 300, partial(study.study_cases, budget="full")),
)


def take(step: Step, setting: Setting) -> bool:
    """Take the cases of a step that are not on record, and note each as it ends. Return whether none failed.

    A case that this machine cannot take, such as one whose package is missing, is a row that says so.
    """
    done = Results(setting.out).of(step.name).cases
    card, ok = devices.describe(setting.device), True
    devices.one_thread()  # as in a worker
    devices.use(setting.device)
    for name, case in step.cases(setting):
        if name in done:
            continue
        try:
            facts: dict[str, Any] = {"rows": case()}
        except HarnessError as fault:
            facts = {"rows": [Row(name, f"not measured: {first_line(fault)}")]}
        except Exception as fault:  # one case that fails, for whatever reason, does not end the others
            traceback.print_exc()
            facts, ok = {"fault": f"{type(fault).__name__}: {first_line(fault)}"}, False
        record.note(setting.out / ROWS, step=step.name, case=name, card=card, **facts)
        gc.collect()  # what a case held on the device is free for the next
    return ok


def main(arguments: list[str], steps: Iterable[Step] = STEPS) -> int:
    """Take the step that the arguments name. Return 1 if a case failed, else 0."""
    name, out, scratch, device, size = arguments
    (step,) = (s for s in steps if s.name == name)
    return int(not take(step, Setting(device, size == "toy", Path(out), Path(scratch))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
