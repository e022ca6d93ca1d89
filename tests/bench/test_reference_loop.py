"""How much faster than the loop that everybody writes: interleaved in one run, one thread, median of the ratios."""

import statistics
from contextlib import ExitStack
from functools import partial

import pytest
import torch

from harness.bench import ladder, machine, rungs
from harness.bench.machine import BATCH
from harness.bench.rungs import GRAPH, JAX, REFERENCE
from harness.errors import MachineError

pytestmark = pytest.mark.usefixtures("provenance")

ROUNDS = 24
FASTER_AT_LEAST = 3.9
PEAK_AT_LEAST = 0.45  # of the rate of fp32 products in the same run


def test_one_trial_on_one_thread(benchmark):
    """By CPU time, which does not count what else runs on the machine."""
    where = torch.device("cpu")
    with ExitStack() as stack:
        contenders = [rungs.usual_loop(REFERENCE, where), rungs.own_step(GRAPH, where, 1, compiled=True)]
        contenders.append(rungs.Rung("product", partial(machine.timed, where, machine.product(where)), 1))
        try:
            contenders.append(rungs.jax(where, 1, stack))
        except MachineError as fault:
            print(f"\n{fault}")
        for contender in contenders:
            contender.call()
        times = benchmark.pedantic(ladder.race, args=(contenders, ROUNDS), rounds=1)
    cpu = {name: [t.cpu for t in spent] for name, spent in times.items()}
    ms = {name: 1e3 * statistics.median(values) for name, values in cpu.items()}
    ratios = {n: statistics.median(a / b for a, b in zip(cpu[REFERENCE], cpu[n], strict=True)) for n in cpu if n != "product"}
    peak = BATCH * machine.flop_per_sample() / ms[GRAPH] / (machine.flop_of_product() / ms["product"])
    benchmark.extra_info.update(ratios=ratios, ms=ms, peak=peak)
    print("\n" + ", ".join(f"{name} {ms[name]:.2f} ms a step, {ratio:.2f} times faster" for name, ratio in ratios.items()))
    print(f"{GRAPH}: {peak:.1%} of the rate of fp32 products")
    assert ratios[GRAPH] >= FASTER_AT_LEAST
    assert peak >= PEAK_AT_LEAST
    assert JAX not in ratios or ratios[GRAPH] > ratios[JAX]
