"""The step with its backward pass written out equals the same operations taken one by one and differentiated by autograd."""

from dataclasses import replace
from pathlib import Path

import own_file
import pytest
import torch
from steps import SMALL, assert_same, trained, weights
from tables import ACTIVATIONS, LIKELIHOODS, OBJECTIVES, OPTIMIZERS

from harness.data import Data, load_dataset
from harness.errors import MachineError
from harness.kernels import library
from harness.models.vae import build
from harness.training.manual import applies

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(library.load() is None, reason=f"no native kernels: {library.fault()}")
PAIRS = list(zip(LIKELIHOODS, ACTIVATIONS, strict=True))
OTHERWISE = {
    "static": {"likelihood": "bernoulli", "likelihood_args": {"binarisation": "static"}},
    "threshold": {"likelihood": "bernoulli", "likelihood_args": {"binarisation": "threshold"}},
    "free bits, a weight that rises": {"free_bits": 0.3, "beta": 2.0, "kl_warmup": 1.0},
    "draws": {"num_samples": 3, "likelihood": "gaussian_shared"},
    "clipped": {"clip_norm": 1.0, "likelihood": "gaussian_shared"},
    "averaged": {"ema_decay": 0.9},
    "clipped draws of another bound": {"clip_norm": 1.0, "objective": "iwae", "num_samples": 2, "likelihood": "gaussian_per_pixel"},
    "other widths": {"network": "mlp", "hidden": (24, 7), "latent": 5},
    "no hidden layer but one": {"network": "mlp", "hidden": (3,), "latent": 1},
}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


@pytest.mark.parametrize(("likelihood", "activation"), PAIRS)
def test_every_likelihood_and_activation(likelihood: str, activation: str, digits: Data) -> None:
    assert_same([SMALL.derive(likelihood=likelihood, activation=activation)], digits, "manual")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_and_optimizer(objective: str, optimizer: str, digits: Data) -> None:
    spec = SMALL.derive(objective=objective, num_samples=2, optimizer=optimizer, weight_decay=1e-2, learning_rate_decay=0.1)
    assert_same([spec], digits, "manual")


@pytest.mark.parametrize("change", OTHERWISE.values(), ids=OTHERWISE)
def test_all_else_that_a_step_has(change: dict, digits: Data) -> None:
    assert_same([SMALL.derive(**change)], digits, "manual")


def test_what_a_user_brings(digits: Data, tmp_path: Path) -> None:
    """A likelihood and an activation that autograd differentiates."""
    own = own_file.write(tmp_path)
    spec = SMALL.derive(likelihood=f"{own}:StudentT", likelihood_args={"df": 3.0}, activation=f"{own}:bent")
    assert_same([spec], digits, "manual")


OWN = """
from dataclasses import dataclass

@dataclass
class Scaled:
    by: float = 0.5

    def __call__(self, x):
        return x.mul_(self.by).tanh_()

without_hash_and_in_place = Scaled()

class Half:
    outputs, scale = 2, "none"

    def log_prob(self, x, *out):
        return -(x - out[0].sigmoid()).square().sum(-1)

    def mean(self, *out):
        return out[0].sigmoid()

    def sample(self, generator, *out):
        return out[0].sigmoid()
"""


@pytest.mark.parametrize("objective", ["elbo", "iwae"])
def test_what_autograd_allows_a_user(objective: str, digits: Data, tmp_path: Path) -> None:
    """An activation in place, by an object without a hash; a likelihood that leaves one of the decoder's outputs unused."""
    (tmp_path / "own.py").write_text(OWN)
    own = {"likelihood": f"{tmp_path}/own.py:Half", "activation": f"{tmp_path}/own.py:without_hash_and_in_place"}
    assert_same([SMALL.derive(objective=objective, **own)], digits, "manual")


def test_images_in_any_order_of_memory(digits: Data) -> None:
    """Levels that are a view with other strides."""
    turned = replace(digits.train, levels=digits.train.levels.t().contiguous().t())
    plain, _ = trained([SMALL], digits, execution="manual")
    other, _ = trained([SMALL], replace(digits, train=turned), execution="manual")
    assert all(map(torch.equal, weights(plain, SMALL), weights(other, SMALL)))


def test_bitwise_the_same_again_and_after_an_interruption(digits: Data) -> None:
    spec = SMALL.derive(likelihood="continuous_bernoulli", epochs=3)
    first, _ = trained([spec], digits, epochs=3, execution="manual")
    second, _ = trained([spec], digits, epochs=2, execution="manual")
    resumed, _ = trained([spec], digits, epochs=0, execution="manual")
    resumed.restore([second.training_state().snapshot(spec)])
    for cohort in (second, resumed):
        cohort.run_epoch()
        assert all(map(torch.equal, weights(cohort, spec), weights(first, spec)))


def test_loss_that_is_not_finite_is_noticed(digits: Data) -> None:
    spec = SMALL.derive(likelihood="mse", learning_rate=1e18)
    cohort, _ = trained([spec], digits, epochs=1, execution="manual")
    assert "not finite" in cohort.failures[spec.id]


def test_what_it_is_not_for(digits: Data) -> None:
    normed = {"network": "mlp", "hidden": (16,), "network_args": {"norm": True}}
    bridged = {"network": "mlp", "hidden": (16,), "network_args": {"residual": True}}
    for other in ({"network": "conv"}, normed, bridged):
        assert not applies(build(SMALL.derive(**other), digits.image_shape), "fp32", CPU)
    model = build(SMALL, digits.image_shape)
    assert applies(model, "fp32", CPU)
    assert not applies(model, "bf16", CPU)
    assert not applies(model, "fp32", torch.device("cuda"))
    assert not applies(build(SMALL, digits.image_shape, lanes=2), "fp32", CPU)


def test_without_kernels_it_says_so(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_load", lambda: library._Loaded(None, "there is no C++ compiler here"))
    with pytest.raises(MachineError, match="no C\\+\\+ compiler"):
        trained([SMALL], digits, execution="manual")
