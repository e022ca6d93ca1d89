"""How much faster than the loop that everybody writes, and than peers: interleaved in one run, one thread, median of the ratios."""

import statistics
from contextlib import ExitStack
from functools import partial

import pytest
import torch

from harness.bench import ladder, machine, rungs
from harness.bench.machine import BATCH
from harness.bench.rungs import BY_HAND, GOOD, GRAPH, JAX, LIGHTNING, PYTHAE, REFERENCE
from harness.errors import MachineError

pytestmark = pytest.mark.usefixtures("provenance")

ROUNDS = 24
FASTER_AT_LEAST = {REFERENCE: 3.9, GOOD: 1.8, LIGHTNING: 3.0, PYTHAE: 3.0, JAX: 1.0, GRAPH: 1.0}  # of those that are here
PEAK_AT_LEAST = 0.75  # of the rate of fp32 products in the same run


def test_one_trial_on_one_thread(benchmark):
    """By CPU time, which does not count what else runs on the machine."""
    where = torch.device("cpu")
    with ExitStack() as stack:
        builders = ladder.plan(where, 1, [], stack)
        contenders = [rungs.Rung("product", partial(machine.timed, where, machine.product(where)), 1)]
        for name in (BY_HAND, *FASTER_AT_LEAST):
            try:
                contenders.append(builders[name]())
            except MachineError as fault:
                print(f"\n{name}: {fault}")
        for contender in contenders:
            contender.call()
        times = benchmark.pedantic(ladder.race, args=(contenders, ROUNDS), rounds=1)
    cpu = {name: [t.cpu for t in spent] for name, spent in times.items()}
    ms = {name: 1e3 * statistics.median(values) for name, values in cpu.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(cpu[name], cpu[BY_HAND], strict=True))
        for name in FASTER_AT_LEAST
        if name in cpu
    }
    peak = BATCH * machine.flop_per_sample() / ms[BY_HAND] / (machine.flop_of_product() / ms["product"])
    benchmark.extra_info.update(ratios=ratios, ms=ms, peak=peak)
    print(f"\n{BY_HAND}: {ms[BY_HAND]:.2f} ms a step, {peak:.1%} of the rate of fp32 products")
    print("\n".join(f"{ratio:.2f} times faster than {name}, {ms[name]:.2f} ms a step" for name, ratio in ratios.items()))
    assert {name: ratio for name, ratio in ratios.items() if ratio < FASTER_AT_LEAST[name]} == {}
    assert peak >= PEAK_AT_LEAST
