"""The validation score after an epoch is the ELBO with one draw, however it is computed."""

import pytest
import torch
from tables import LIKELIHOODS

from harness import metrics
from harness.data import Data, load_dataset
from harness.kernels import library
from harness.metrics import memory
from harness.models.vae import VAE
from harness.spec import TrialSpec
from harness.training.cohort import Cohort
from harness.training.validation import Validation

CPU = torch.device("cpu")
SMALL = TrialSpec(dataset="digits", batch_size=32, epochs=1, learning_rate=1e-3)
TERMS = ("elbo/validation", "recon/validation", "kl/validation")


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


def trained(spec: TrialSpec, data: Data) -> VAE:
    cohort = Cohort([spec], data, CPU)
    cohort.run_epoch()
    return cohort.trained(spec)


def as_scored(spec: TrialSpec, vae: VAE, data: Data, **how: int) -> list[float]:
    """By the final score's own function, in the order of TERMS."""
    x = metrics.model_inputs(spec, data.validation)
    return list(metrics.estimate_elbo(vae, metrics.native(vae, x), samples=1, **how)[:3])


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_lane_is_scored_natively_as_without_kernels(likelihood: str, digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(digits.validation) % 70
    spec = SMALL.derive(likelihood=likelihood)
    vae = trained(spec, digits)
    (found,) = Validation(digits.validation, batch_size=70).score([spec], vae)
    monkeypatch.setattr(library, "_load", lambda: library._Loaded(None, "no kernels"))
    assert [found[t] for t in TERMS] == pytest.approx(as_scored(spec, vae, digits, batch_size=70), rel=2e-6, abs=2e-5)


def test_all_lanes_are_scored_together_as_each_alone(digits: Data) -> None:
    arms = [{"likelihood": "bce"}, {"likelihood": "mse"}, {"likelihood": "continuous_bernoulli"}, {"likelihood": "bernoulli"}]
    specs = [SMALL.derive(**arm, seed=seed) for arm in arms for seed in range(2)]
    cohort = Cohort(specs, digits, CPU)
    cohort.run_steps(5)
    together = Validation(digits.validation, batch_size=70).score(cohort.lanes, cohort.vae)
    for spec, found in zip(specs, together, strict=True):
        assert [found[t] for t in TERMS] == pytest.approx(as_scored(spec, cohort.trained(spec), digits, batch_size=70), rel=1e-5)


def test_batches_of_many_lanes_are_smaller_and_the_score_is_the_same(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = Cohort([SMALL.derive(seed=s) for s in range(3)], digits, CPU)
    whole = Validation(digits.validation).score(cohort.lanes, cohort.vae)
    monkeypatch.setattr(memory, "CPU_VALUES", 3 * 256 * 7)  # seven images at a time
    monkeypatch.setattr(memory, "FEW_ROWS", 1)
    rows: list[int] = []
    cohort.vae.encoder.register_forward_pre_hook(lambda _, x: rows.append(x[0].shape[1]))
    split = Validation(digits.validation).score(cohort.lanes, cohort.vae)
    assert max(rows) == 7
    for a, b in zip(whole, split, strict=True):
        assert [a[t] for t in TERMS] == pytest.approx([b[t] for t in TERMS], rel=1e-6)
