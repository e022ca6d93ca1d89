"""Times of a step on a GPU: one lane's program in detail, then lanes by precision and way of execution."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any
from unittest.mock import patch

from torch.profiler import profile, supported_activities

from harness import devices
from harness.bench.gpu import parity
from harness.bench.gpu.record import Row, digits
from harness.bench.gpu.setting import COMPILED, EAGER, GRAPH, Case, Setting, again, cohort_of, first_line, ready
from harness.spec import CHUNK
from harness.training.batches import BatchStream
from harness.training.cohort import Cohort
from harness.training.step import BoundStep, Execution, LaneConstants

FP32, TF32, BF16 = "fp32", "tf32", "bf16"
ONE_TRIAL_MS = 0.12
GOALS_US = {(64, FP32, COMPILED): 13.0, (64, TF32, COMPILED): 8.0}  # by lanes, precision and execution, per trial-step

Lanes = tuple[int, str, Execution]  # their number, precision and execution
# By worth: 64 lanes decide what a study costs. What is compiled in fp32 shares its Triton kernels with TF32, which is cheap then.
FIRST: tuple[Lanes, ...] = (
    (64, FP32, GRAPH),
    (64, FP32, COMPILED),
    (64, TF32, COMPILED),
    (16, FP32, COMPILED),
    (256, FP32, COMPILED),
    (64, BF16, COMPILED),
    (16, TF32, COMPILED),
    (256, TF32, COMPILED),
    (1, TF32, COMPILED),
    (64, TF32, GRAPH),
    (16, FP32, GRAPH),
    (256, FP32, GRAPH),
)
REST: tuple[Lanes, ...] = tuple((lanes, FP32, execution) for execution in (COMPILED, GRAPH) for lanes in (32, 128, 8, 4, 2))
TOY_FIRST: tuple[Lanes, ...] = ((2, FP32, GRAPH), (2, TF32, GRAPH), (2, BF16, GRAPH), (2, FP32, COMPILED))
TOY_NETWORK_LANES = 2
TOY_REST: tuple[Lanes, ...] = ((4, FP32, GRAPH),)


# -------------------------------------------------------------------------------- one lane


def one_lane_cases(setting: Setting) -> Iterator[Case]:
    """Yield one lane's step as traced, compiled, and by single operations; last the compiled one, at hand by then, for parity."""
    yield GRAPH, lambda: one_lane(setting, GRAPH)
    yield COMPILED, lambda: one_lane(setting, COMPILED)
    if devices.can_capture(setting.device):
        yield "no waiting", lambda: no_waiting(setting)
    yield EAGER, lambda: one_lane_eager(setting)
    yield "parity", lambda: parity.against_oracle(setting, setting.lanes(1), ["compiled, against float64 on the CPU"], COMPILED)


def one_lane(setting: Setting, execution: Execution) -> list[Row]:
    """Return how long one lane's program took to make, its compiles and kernels, and the time of a step of it."""
    cohort = cohort_of(setting, setting.lanes(1), execution)
    started = perf_counter()
    with counted_compiles() as compiles:
        bound = ready(cohort)
    ready_s = perf_counter() - started
    words = f"{ready_s:.1f} s, of which tracing and compiling {cohort.compile_s:.1f} s"
    rows = [Row(f"{execution}: first {2 * CHUNK} steps", words)]
    if execution == COMPILED:
        rows.append(Row("compiles", str(len(compiles)), "1", len(compiles) == 1))
    kernels = kernels_of_replay(bound, setting)
    words = f"{kernels / CHUNK:.1f} a step, {kernels} a launch of {CHUNK} steps" if kernels else "the profiler saw none"
    rows.append(Row(f"{execution}: kernels", words))
    ms, fed_ms = (1e3 * s for s in _step_s(setting, cohort, bound))
    goal = setting.judged(f"{execution}: one trial", ms, "ms a step", ONE_TRIAL_MS, f"with order and noise drawn {digits(fed_ms)}")
    return [*rows, goal if execution == COMPILED else goal._replace(goal="", ok=None)]


def one_lane_eager(setting: Setting) -> list[Row]:
    """Return the time of one lane's step by single operations."""
    cohort = cohort_of(setting, setting.lanes(1), EAGER)
    ms = 1e3 * setting.seconds(lambda: cohort.run_steps(setting.steps)) / setting.steps
    return [Row("eager: one trial", f"{digits(ms)} ms a step, with order and noise drawn")]


def no_waiting(setting: Setting) -> list[Row]:
    """Return whether chunks of steps wait for the device while they are fed and taken, by torch's own alarm for that."""
    cohort = cohort_of(setting, setting.lanes(2), GRAPH)
    bound = ready(cohort)
    stream = BatchStream(cohort.lanes, cohort.levels, cohort.steps_per_epoch, cohort.epoch, cohort.config.optimizer)
    constants = LaneConstants(cohort.levels, cohort.weight_decay, cohort.free_bits)
    name = "two chunks of steps, fed and taken"
    try:
        with devices.no_waiting():
            for chunk in devices.ahead(stream.chunks(2 * CHUNK, whole=True), setting.device):
                bound.run(constants, chunk, CHUNK, lambda steps: None)
    except RuntimeError as fault:
        return [Row(name, f"wait for the device: {first_line(fault)}", "never wait", False)]
    return [Row(name, "never wait but for the chunk before the last", "never wait", True)]


@contextmanager
def counted_compiles() -> Iterator[list[None]]:
    """Provide a list that grows by one with each call of Inductor's compile in this block, whether or not its cache answers."""
    from torch._inductor import compile_fx  # imported here because it takes seconds

    compiles: list[None] = []
    compile_graph, depth = compile_fx.compile_fx, 0

    def counting(*arguments: Any, **options: Any) -> Any:
        """Compile; Inductor calls itself again where options are given, which is no compile of its own."""
        nonlocal depth
        if not depth:
            compiles.append(None)
        depth += 1
        try:
            return compile_graph(*arguments, **options)
        finally:
            depth -= 1

    with patch.object(compile_fx, "compile_fx", counting):
        yield compiles


def kernels_of_replay(bound: BoundStep, setting: Setting) -> int:
    """Return the kernels and copies that a launch of a captured chunk runs on the device; none on a CPU."""

    def count() -> int:
        bound.at.zero_()
        devices.wait(setting.device)
        with profile(activities=supported_activities()) as profiler:
            bound.graphs[CHUNK]()
            devices.wait(setting.device)
        return sum(e.device_type.name != "CPU" and not e.is_user_annotation for e in profiler.events() or [])

    if not bound.graphs:
        return 0
    count()  # the first one sets the profiler up
    return count()


# -------------------------------------------------------------------------------- networks of ordinary modules


def network_cases(setting: Setting) -> Iterator[Case]:
    """Yield parity of the convolutional networks, then the times of their steps."""
    yield from parity.network_cases(setting)
    for name in ("conv", "resnet"):
        for count, execution in ((1, GRAPH), (TOY_NETWORK_LANES if setting.toy else 64, GRAPH), (1, COMPILED)):
            yield f"{name}, {count} lanes, {execution}", partial(network_times, setting, name, count, execution)


def network_times(setting: Setting, network: str, count: int, execution: Execution) -> list[Row]:
    """Return the time of a step of one trial of a network when so many train together."""
    spec = setting.base.derive(network=network, hidden=None, latent=20)
    cohort = cohort_of(setting, [spec.derive(seed=seed) for seed in range(count)], execution)
    us, fed_us = (1e6 * s / count for s in _step_s(setting, cohort, ready(cohort)))
    more = f"with order and noise drawn {digits(fed_us)}; ready in {cohort.compile_s:.1f} s"
    return [Row(f"{network}, {count} lanes, fp32, {execution}", f"{digits(us)} us per trial-step; {more}")]


# -------------------------------------------------------------------------------- lanes


def first_cases(setting: Setting) -> Iterator[Case]:
    """Yield the lanes that are worth most."""
    yield from _cases(setting, TOY_FIRST if setting.toy else FIRST)


def rest_cases(setting: Setting) -> Iterator[Case]:
    """Yield the other lanes."""
    yield from _cases(setting, TOY_REST if setting.toy else REST)


def _cases(setting: Setting, lanes: tuple[Lanes, ...]) -> Iterator[Case]:
    """Yield a case for each of these lanes."""
    for count, precision, execution in lanes:
        yield f"{count} lanes, {precision}, {execution}", partial(lane_times, setting, count, precision, execution)


def lane_times(setting: Setting, count: int, precision: str, execution: Execution) -> list[Row]:
    """Return the time of a step of one trial when so many train together."""
    name = f"{count} lanes, {precision}, {execution}"
    cohort = cohort_of(setting, setting.lanes(count, precision), execution)
    bound = ready(cohort)
    us, fed_us = (1e6 * s / count for s in _step_s(setting, cohort, bound))
    more = f"with order and noise drawn {digits(fed_us)}; ready in {cohort.compile_s:.1f} s"
    row = setting.judged(name, us, "us per trial-step", GOALS_US.get((count, precision, execution), 0.0), more)
    return [row if (count, precision, execution) in GOALS_US else row._replace(goal="", ok=None)]


def _step_s(setting: Setting, cohort: Cohort, bound: BoundStep) -> tuple[float, float]:
    """Return the seconds of a step of all lanes: of the program alone, and with all that a step of a shortened epoch takes."""
    fed = setting.seconds(lambda: cohort.run_steps(setting.steps)) / setting.steps
    return setting.seconds(again(bound)) / CHUNK, fed
