"""Noise is drawn once: no seed, epoch, step or kind of randomness sees what another one saw."""

from itertools import combinations, product

import pytest
import torch
from torch import Tensor

from harness.data import Data, frozen_noise, load_dataset
from harness.spec import CHUNK, TrialSpec
from harness.training.batches import BatchStream, generator
from harness.training.cohort import Cohort
from harness.training.optimizers import Adam

NOISY = TrialSpec(dataset="digits", likelihood="bernoulli", batch_size=16, latent=2, epochs=2)
STREAMS = ("order", "latent", "pixels", "weights")


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


def test_each_seed_epoch_and_kind_of_randomness_has_a_generator_of_its_own() -> None:
    drawn = {
        key: tuple(torch.randint(2**62, (4,), generator=generator(seed, stream, epoch)).tolist())
        for key in product((0, 1, 10, 11), STREAMS, (0, 1, 10, 11))
        for seed, stream, epoch in [key]
    }
    assert len(set(drawn.values())) == len(drawn)
    assert torch.equal(torch.rand(9, generator=generator(3, "latent", 5)), torch.rand(9, generator=generator(3, "latent", 5)))


def epoch_of(spec: TrialSpec, digits: Data, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Order (T, B), noise of z (T, B, Z) and noise of pixels (T, B, P) of an epoch's whole batches."""
    steps = len(digits.train) // spec.batch_size
    stream = BatchStream([spec], digits.train.levels, steps, epoch, Adam())
    chunks = list(stream.chunks(steps, whole=False))
    assert len(chunks) > 1
    assert len(chunks[0].batch) == CHUNK
    return tuple(torch.cat([getattr(c, name)[:, 0] for c in chunks]).squeeze(1) for name in ("batch", "eps", "u"))  # type: ignore[return-value]


def test_no_step_sees_the_noise_of_another(digits: Data) -> None:
    """Over two epochs of two seeds all draws differ, from each other and from what evaluations draw."""
    epochs = [epoch_of(NOISY.derive(seed=seed), digits, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for one, other in combinations(epochs, 2):
        assert not torch.equal(one[0], other[0])
    eps, u = (torch.cat([e[i].flatten(0, 1) for e in epochs]) for i in (1, 2))
    assert len(eps.unique(dim=0)) == len(eps)
    assert len(u.unique(dim=0)) == len(u)
    assert abs(eps.double().mean()) < 5 / eps.numel() ** 0.5
    assert eps.double().var().item() == pytest.approx(1, abs=5 * (2 / eps.numel()) ** 0.5)
    assert u.double().mean().item() == pytest.approx(0.5, abs=5 * (1 / 12 / u.numel()) ** 0.5)
    frozen = torch.cat([frozen_noise(split) for split in (digits.train, digits.validation, digits.test)])
    assert len(torch.cat([u, frozen]).unique(dim=0)) == len(u) + len(frozen)


def test_every_seed_starts_from_weights_of_its_own(digits: Data) -> None:
    cohort = Cohort([NOISY.derive(seed=seed) for seed in range(3)], digits, torch.device("cpu"))
    weights = [p for p in cohort.params if p.std() > 0]
    assert weights
    for p in weights:
        assert not any(torch.equal(p[a], p[b]) for a, b in combinations(range(3), 2))
