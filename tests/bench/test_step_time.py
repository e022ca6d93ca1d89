"""Time of a training step: by likelihood, activation, network and lanes. One round is a chunk of 32 steps."""

import pytest
from tables import ACTIVATIONS, LIKELIHOODS

from harness import devices
from harness.spec import TrialSpec
from harness.training.batches import CHUNK


def measure(benchmark, run) -> None:
    benchmark.extra_info.update(units=CHUNK, unit="step")
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_likelihood(benchmark, chunk_of, likelihood):
    benchmark.group = "32 steps by likelihood"
    measure(benchmark, chunk_of(TrialSpec(likelihood=likelihood)))


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
