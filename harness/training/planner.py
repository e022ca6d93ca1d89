"""The plan of a study's training: which trials share a program, how many train at a time, how their steps are taken."""

import multiprocessing as mp
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch

from harness import catalog, devices
from harness.data import Data, load_dataset
from harness.errors import MachineError
from harness.kernels import library, matmul
from harness.models.lanes import bucket
from harness.models.vae import build, mixing_group
from harness.spec import CHUNK, TrialSpec
from harness.training import manual
from harness.training.children import end_with_parent, no_interrupts
from harness.training.cohort import Cohort
from harness.training.step import Execution

MOST_LANES = 128
# On a CPU: the steps from which tracing pays where own products and convolutions are faster. It takes 1 to 2 s, and saves 6 ms a
# step of `conv` (docs/log.md).
TRACED_STEPS = 500
KNEE = 0.9  # twice the lanes must cost at most this much per trial to be worth their memory
WARM_S, PROBE_S = 0.3, 1.0  # of steps before a measurement, and of the measurement
PATIENCE_S = 300.0  # for the whole probe, of which loading torch and data takes most

# Of the reference model on an H100 (docs/performance.md): the time of a captured step that is not compiled, and of one trial's
# share in a step of 64. A study of less than PROBED_S by these is neither probed, which takes about 15 s, nor compiled.
STEP_S, TRIAL_STEP_S, PROBED_S = 6e-4, 37e-6, 60.0
# There too: the seconds of a cold compile (11 to 25), and the part of a captured step's time that compiling saves (0.59 to 0.70).
COMPILE_S, SAVED = 20.0, 0.6


@dataclass(frozen=True)
class Plan:
    """A plan for the training of a study's trials.

    Attributes:
        workers: the number of programs that train at a time.
        lanes: the most trials of one group that a program trains together.
        mixed: the groups in which trials of several likelihoods or activations share a program.
        why: the choice in words, for people.
        executions: how the steps of a group are taken.
        otherwise: how those of all other groups are.
    """

    workers: int
    lanes: int
    mixed: frozenset[str]
    why: str
    executions: Mapping[str, Execution] = field(default_factory=dict)
    otherwise: Execution = "eager"

    def group(self, spec: TrialSpec) -> str:
        """Return the group of a trial: trials of equal groups may train together."""
        group = mixing_group(spec)
        return group if group in self.mixed else spec.cohort.id

    def execution(self, spec: TrialSpec) -> Execution:
        """Return how the steps of a trial are taken."""
        return self.executions.get(self.group(spec), self.otherwise)


def plan(
    specs: Sequence[TrialSpec], data: Data, device: torch.device, workers: int, *, per_gpu: int = 1, alone: bool = False
) -> Plan:
    """Return the plan for these trials on this device.

    On a CPU it depends on the specs, the number of workers and whether there are kernels and a compiler. Every worker has one
    thread and one lane: more lanes would only save dispatch there, and the state of several does not fit the cache
    (docs/performance.md has measurements of both). Fully connected networks take the native kernels. On a
    GPU all trials that can share a program do; long studies are probed first, in a process of its own.

    Args:
        specs: the trials.
        data: their data set, on the CPU.
        device: the kind of device of every worker.
        workers: the number of programs that train at a time.
        per_gpu: the number of workers that share a GPU and its memory.
        alone: True for a program per trial, because their time is judged.

    Raises:
        UserError: a precision that is no faster on this device.
        MachineError: the probe ended without a result.
    """
    for precision in sorted({s.precision for s in specs}):
        devices.check_precision(precision, device)
    if device.type != "cpu":
        return _on_a_gpu(specs, data, device, workers, per_gpu=per_gpu, most=1 if alone else MOST_LANES)
    counts = Counter(s.cohort for s in specs)
    executions = {c.id: _on_a_cpu(c, data, _steps(c, data, n, workers)) for c, n in counts.items()}
    by_kernels, compiled = (list(executions.values()).count(how) for how in ("manual", "compiled"))
    why = [f"{workers} at a time, one thread and one trial each"]
    if by_kernels:
        of = "" if by_kernels == len(counts) else f"{by_kernels} of {len(counts)} programs "
        why.append(f"{of}by native kernels")
    if library.fault():
        why.append(f"no native kernels: {library.fault()}")
    if by_kernels < len(counts):
        short = "no C++ compiler here" if devices.compiler(device) is None else "too short to pay for it"
        why.append(f"{compiled} of {len(counts)} programs compiled" if compiled else f"not compiled: {short}")
    return Plan(workers, 1, frozenset(), "; ".join(why), executions)


def execution_alone(spec: TrialSpec, data: Data, device: torch.device) -> Execution:
    """Return how the steps of a trial that trains alone in this process are taken, by the estimates for this kind of device.

    Nothing is probed: that takes a process of its own, which may not be started from any script.

    Raises:
        UserError: a precision that is no faster on this device.
    """
    devices.check_precision(spec.precision, device)
    steps = _steps(spec, data, 1)
    if device.type == "cpu":
        return _on_a_cpu(spec, data, steps)
    return "compiled" if steps * STEP_S * SAVED > COMPILE_S and devices.compiler(device) is not None else "graph"


def _on_a_cpu(spec: TrialSpec, data: Data, steps: int) -> Execution:
    """Return how the steps of a trial are taken on a CPU, if a worker takes so many of its kind."""
    cpu = torch.device("cpu")
    if manual.applies(build(spec, data.image_shape), spec.precision, cpu):
        return "manual"
    if steps >= _break_even_steps(spec) and devices.compiler(cpu) is not None:
        return "compiled"
    return "graph" if steps >= TRACED_STEPS and matmul.worthwhile(cpu) else "eager"


def _break_even_steps(spec: TrialSpec) -> int:
    """Return the steps from which compiling a trial's step pays on a CPU."""
    entry = catalog.entry("network", spec.network)
    return (entry if isinstance(entry, catalog.NetworkEntry) else catalog.NetworkEntry).break_even_steps


def _steps(cohort: TrialSpec, data: Data, programs: int, workers: int = 1) -> int:
    """Return how many steps one worker takes if `programs` programs of this cohort are to train in all."""
    per_epoch = -(-len(data.fit_on(cohort.fit_on).levels) // cohort.batch_size)
    return -(-programs // workers) * cohort.epochs * per_epoch


def _on_a_gpu(specs: Sequence[TrialSpec], data: Data, device: torch.device, workers: int, *, per_gpu: int, most: int) -> Plan:
    """Return the plan for trials on GPUs, of which this process uses none; at most so many share a program."""
    sizes = Counter(map(mixing_group, specs))
    mixed = frozenset(g for g in sizes if len({s.cohort for s in specs if mixing_group(s) == g}) > 1)
    lane_bytes = {c: Cohort([c], data, torch.device("cpu")).bytes_per_lane for c in {s.cohort for s in specs}}
    largest = max(lane_bytes, key=lambda c: (lane_bytes[c], c.id))
    fits = devices.memory_holds(device, lane_bytes[largest], per_gpu)
    lanes = min(most, bucket(-(-max(sizes.values()) // workers)), bucket(fits + 1) // 2)
    draft = Plan(workers, lanes, mixed, "", otherwise="graph")
    groups: dict[str, list[TrialSpec]] = {}
    for spec in specs:
        groups.setdefault(draft.group(spec), []).append(spec)
    why = f"{len(groups)} program{'s' * (len(groups) > 1)}, {workers} at a time, of up to {{lanes}} trials; "
    programs_s = STEP_S * sum(_steps(trials[0], data, -(-len(trials) // lanes)) for trials in groups.values())
    trials_s = TRIAL_STEP_S * sum(_steps(trials[0], data, len(trials)) for trials in groups.values())
    if max(programs_s, trials_s) / workers < PROBED_S:
        return replace(draft, why=why.format(lanes=lanes) + "too short to be probed or compiled")
    probed = _probe_elsewhere(Probe(largest, lanes, str(device)))
    if devices.compiler(device) is None:
        return replace(draft, lanes=probed.lanes, why=why.format(lanes=probed.lanes) + "not compiled: no C compiler here")
    compiled: dict[str, Execution] = {
        g: "compiled"
        for g, trials in groups.items()
        if _steps(trials[0], data, -(-len(trials) // probed.lanes), workers) * probed.step_s * SAVED > COMPILE_S
    }
    measured = f"a step takes {1e3 * probed.step_s:.2f} ms as probed, {len(compiled)} compiled"
    return replace(draft, lanes=probed.lanes, executions=compiled, why=why.format(lanes=probed.lanes) + measured)


class Probe(NamedTuple):
    """A measurement to make: of cohorts of this trial, of at most so many lanes, on the device of this name."""

    spec: TrialSpec
    most: int
    device: str


class Probed(NamedTuple):
    """The result of a probe: the lanes of a program, and the seconds of a captured step of all of them."""

    lanes: int
    step_s: float


def _probe_elsewhere(task: Probe) -> Probed:
    """Return the result of a probe that is made in a process of its own, whose context on the GPU ends with it.

    Raises:
        MachineError: the process ended without a result.
    """
    context = mp.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_answer, args=(there, task), daemon=True)
    with no_interrupts():
        process.start()
    there.close()
    try:
        answer = here.recv() if here.poll(PATIENCE_S) else f"no answer in {PATIENCE_S:.0f} s"
    except EOFError:
        answer = "its process ended"
    finally:
        process.kill()
        process.join()
        here.close()
    if isinstance(answer, str):
        raise MachineError(f"the probe of {task.device} failed: {answer}\nto train on the CPU: DEVICE=cpu")
    return Probed(*answer)


def _answer(link: Connection, task: Probe) -> None:
    """Make a probe and send its result, or the fault in words. The function of its process."""
    end_with_parent()
    devices.one_thread()
    try:
        link.send(tuple(probe(task, load_dataset(task.spec.dataset, lambda _: None, task.spec.dataset_args))))
    except Exception as fault:  # whatever it is, the driver says it in words
        link.send(f"{type(fault).__name__}: {fault}")


def probe(task: Probe, data: Data, seconds: float = PROBE_S) -> Probed:
    """Return the largest number of lanes, `most` or a half, a quarter ... of it, that fits and is worth its memory.

    It is worth it if a trial's step gets cheaper by more than the factor KNEE against half as many lanes. Every number is measured
    for so many `seconds`.
    """
    device = devices.named(task.device)
    devices.use(device)
    lanes, cost = task.most, _cost(task, task.most, data, seconds)
    while lanes > 1:
        half = _cost(task, lanes // 2, data, seconds)
        if cost < KNEE * half:  # false if neither fits
            break
        lanes, cost = lanes // 2, half
    if cost == float("inf"):
        raise MachineError(f"out of memory with one trial of {task.spec.cohort}")
    return Probed(lanes, cost * lanes)


def _cost(task: Probe, lanes: int, data: Data, seconds: float) -> float:
    """Return the seconds of one trial's share in a step of so many lanes; infinity if they do not fit in memory."""
    try:
        return trial_step([task.spec.derive(seed=i) for i in range(lanes)], data, devices.named(task.device), seconds)
    except RuntimeError as fault:
        if not devices.is_out_of_memory(fault):
            raise
        return float("inf")
    finally:
        devices.release_memory(devices.named(task.device))


def trial_step(specs: Sequence[TrialSpec], data: Data, device: torch.device, seconds: float = PROBE_S) -> float:
    """Return the seconds of one step of one trial when these trials train together, measured for at least so many seconds.

    Measured with all that a step costs, on the graph that short studies train with: captured but not compiled, ready in a second.
    """
    cohort = Cohort(specs, data, device, "graph")
    steps = min(4 * CHUNK, cohort.steps_per_epoch)

    def run(least: float) -> float:
        """Take steps for at least so many seconds; return the seconds of one."""
        taken, started = 0, time.perf_counter()
        while not taken or time.perf_counter() - started < least:
            cohort.run_steps(steps)
            taken += steps
        devices.wait(device)
        return (time.perf_counter() - started) / taken

    run(min(WARM_S, seconds))
    return run(seconds) / len(specs)
