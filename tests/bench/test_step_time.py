"""Time of a training step: by likelihood, activation, network and lanes. One round is a chunk of 32 steps."""

import statistics
from functools import partial

import pytest
from tables import ACTIVATIONS, LIKELIHOODS

from harness import devices
from harness.bench import ladder, machine
from harness.bench.rungs import Rung
from harness.spec import CHUNK, TrialSpec


def measure(benchmark, run) -> None:
    benchmark.extra_info.update(units=CHUNK, unit="step")
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_likelihood(benchmark, chunk_of, likelihood):
    benchmark.group = "32 steps by likelihood"
    measure(benchmark, chunk_of(TrialSpec(likelihood=likelihood)))


HELD = ("gaussian_per_pixel", "continuous_bernoulli")
COSTS_AT_MOST = 1.25  # times as many FLOP of a step of bce: with two outputs a pixel a step has 1.54 times the FLOP


def flop(likelihood: str) -> int:
    """Of a training step per image, of the reference model with this likelihood."""
    *others, (inputs, outputs) = machine.LAYERS
    return machine.flop_per_sample([*others, (inputs, outputs * LIKELIHOODS[likelihood].outputs)])


def test_a_likelihood_costs_little_more_than_bce_for_its_products(benchmark, chunk_of, where):
    """Interleaved in one run, by CPU time on a CPU, medians of the ratios; all are shown, some are held."""
    contenders = [
        Rung(name, partial(machine.timed, where, chunk_of(TrialSpec(likelihood=name))), CHUNK)
        for name in dict.fromkeys(("bce", *LIKELIHOODS))
    ]
    for contender in contenders:
        contender.call()
    times = benchmark.pedantic(ladder.race, args=(contenders, 9), rounds=1)
    seconds = {name: [t.cpu if where.type == "cpu" else t.wall for t in spent] for name, spent in times.items()}
    ratios = {name: statistics.median(b / a for a, b in zip(seconds["bce"], of, strict=True)) for name, of in seconds.items()}
    per_flop = {name: ratio * flop("bce") / flop(name) for name, ratio in ratios.items()}
    ms = {name: 1e3 * statistics.median(of) for name, of in seconds.items()}
    benchmark.extra_info.update(ms=ms, ratios=ratios, per_flop=per_flop)
    print("\n" + "\n".join(f"{n}: {r:.2f} times a step of bce, {per_flop[n]:.2f} for its FLOP" for n, r in ratios.items()))
    assert {name: per_flop[name] for name in HELD if per_flop[name] > COSTS_AT_MOST} == {}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation(benchmark, chunk_of, activation):
    benchmark.group = "32 steps by activation"
    measure(benchmark, chunk_of(TrialSpec(activation=activation)))


@pytest.mark.parametrize("latent", [2, 20, 50])
@pytest.mark.parametrize("hidden", [None, (256, 128), (200, 200)], ids=["reference", "256-128", "200-200"])
def test_network(benchmark, chunk_of, hidden, latent):
    benchmark.group = "32 steps by network and latents"
    measure(benchmark, chunk_of(TrialSpec(network="mlp" if hidden else "reference", hidden=hidden, latent=latent)))


@pytest.mark.parametrize("lanes", [1, 2, 4, 8])
def test_lanes(benchmark, chunk_of, lanes):
    """A step of all lanes together."""
    benchmark.group = "32 steps by lanes"
    measure(benchmark, chunk_of(*(TrialSpec(seed=s) for s in range(lanes))))


def test_compiled(benchmark, chunk_of, where):
    """One lane, compiled in the warm-up; beside `test_lanes[1]`."""
    benchmark.group = "32 steps by lanes"
    if devices.compiler(where) is None:
        pytest.skip("no compiler here")
    measure(benchmark, chunk_of(TrialSpec(), execution="compiled"))
