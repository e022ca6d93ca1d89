"""Time of a training step of the reference model: by likelihood, by activation, by lanes. One round is a chunk of 32 steps."""

import pytest

from harness.cohort import CHUNK
from harness.likelihoods import LIKELIHOODS
from harness.networks import ACTIVATIONS
from harness.spec import TrialSpec

pytestmark = pytest.mark.usefixtures("provenance")


def measure(benchmark, run, trials: int = 1) -> None:
    benchmark.extra_info["images_per_round"] = CHUNK * TrialSpec().batch_size * trials
    benchmark.pedantic(run, rounds=10, iterations=1, warmup_rounds=2)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_likelihood(benchmark, chunk_of, likelihood):
    benchmark.group = "step by likelihood"
    measure(benchmark, chunk_of(TrialSpec(likelihood=likelihood)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation(benchmark, chunk_of, activation):
    benchmark.group = "step by activation"
    measure(benchmark, chunk_of(TrialSpec(activation=activation)))


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_lanes(benchmark, chunk_of, lanes):
    benchmark.group = "chunk by lanes (a round trains as many trials)"
    measure(benchmark, chunk_of(*(TrialSpec(seed=s) for s in range(lanes))), trials=lanes)
