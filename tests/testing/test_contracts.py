"""The contracts hold for all that the package has, and whoever breaks one is told the rule and the number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import Score, catalog, paths
from harness.errors import UserError
from harness.testing import (
    ContractError,
    check_activation,
    check_dataset,
    check_likelihood,
    check_network,
    check_objective,
    check_score,
)

STUDENT_T = f"{paths.PROJECT}/examples/own_likelihood/losses.py:StudentT"
CONV = f"{paths.PROJECT}/examples/own_network/networks.py:conv"
SHAPE = (1, 8, 8)

# -------------------------------------------------------------------------------- what holds


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, {}) for name in catalog.LIKELIHOODS),
        ("mse", {"sigma": 0.05}),
        ("bernoulli", {"binarisation": "static"}),
        ("bernoulli", {"binarisation": "threshold"}),
        ("logistic_mixture", {"components": 1}),
        pytest.param("logistic_mixture", {"channels": 3, "components": 2}, marks=pytest.mark.slow),  # all 256^3 colours
        (STUDENT_T, {"df": 3.0}),
        (STUDENT_T, {"df": 1.0}),  # Cauchy's: no mean and no variance
    ],
)
def test_likelihoods_keep_their_contract(name: str, arguments: dict[str, Any]) -> None:
    check_likelihood(name, **arguments)


@pytest.mark.parametrize("name", [*catalog.NETWORKS, CONV])
def test_networks_keep_their_contract(name: str) -> None:
    check_network(name)
    check_network(name, image_shape=(1, 12, 12), latent=5)


@pytest.mark.parametrize("name", catalog.ACTIVATIONS)
def test_activations_keep_their_contract(name: str) -> None:
    check_activation(name)


@pytest.mark.parametrize("name", catalog.OBJECTIVES)
def test_objectives_keep_their_contract(name: str) -> None:
    check_objective(name)


def test_data_sets_keep_their_contract() -> None:
    check_dataset("digits")
    check_dataset("mnist")


# -------------------------------------------------------------------------------- likelihoods that do not


@dataclass(frozen=True)
class Normal:
    """Normal(sigmoid(a), 0.1), which keeps the contract."""

    scale: str = "density on v/255"
    outputs: int = 1

    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        return torch.distributions.Normal(a.sigmoid(), 0.1, validate_args=False).log_prob(x).sum(-1)

    def mean(self, a: Tensor) -> Tensor:
        return a.sigmoid()

    def sample(self, generator: torch.Generator, a: Tensor) -> Tensor:
        return a.sigmoid() + 0.1 * torch.randn(a.shape, generator=generator, dtype=a.dtype)


class TwoPercent(Normal):
    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        return super().log_prob(x, a) + 0.0198 * x.shape[-1]


class MeanOfPixels(Normal):
    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        return super().log_prob(x, a) / x.shape[-1]


class SumOfImages(Normal):
    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        return super().log_prob(x, a).sum(-1)


class AcrossLanes(Normal):
    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        return super().log_prob(x - x.mean(0, keepdim=True), a)


class Random(Normal):
    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        return super().log_prob(x + torch.randn_like(x), a)


class OffTheAxis(Normal):
    def mean(self, a: Tensor) -> Tensor:
        return a


class TooWide(Normal):
    def sample(self, generator: torch.Generator, a: Tensor) -> Tensor:
        return a.sigmoid() + 0.12 * torch.randn(a.shape, generator=generator, dtype=a.dtype)


class Unseeded(Normal):
    def sample(self, generator: torch.Generator, a: Tensor) -> Tensor:
        return a.sigmoid() + 0.1 * torch.randn_like(a)


class LooseLevels(Normal):
    def log_pmf(self, v: Tensor, a: Tensor) -> Tensor:
        return (v * 0 - 5.0).sum(-1)


class Overflows(Normal):
    def mean(self, a: Tensor) -> Tensor:
        return (a.exp() ** 20) / (1 + a.exp() ** 20)


class SteepMean(Normal):
    """Its mean is finite for any output, its gradient is not where exp overflows."""

    def mean(self, a: Tensor) -> Tensor:
        return 1 - 1 / (1 + a.exp())


class Elsewhere(Normal):
    def __init__(self) -> None:
        super().__init__(scale="density on the moon")


class Nameless(Normal):
    def __init__(self) -> None:
        super().__init__(scale="moon")


class NoOutputs(Normal):
    def __init__(self) -> None:
        super().__init__(outputs=0)


@dataclass
class Mutable(Normal.__base__):  # type: ignore[misc, name-defined]
    scale: str = "density on v/255"
    outputs: int = 1
    log_prob = mean = sample = Normal.log_prob


class NoPmf(Normal):
    def log_pmf(self, v: Tensor, a: Tensor) -> None:
        return None


class Detached(Normal):
    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        return super().log_prob(x, a.detach())


class Fussy(Normal):
    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        if x.shape[1] > 100:
            raise ValueError("too many images")
        return super().log_prob(x, a)


class Looks(Normal):
    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        return super().log_prob(x, a) if a.mean() < 100 else super().log_prob(x, 0 * a)


LIKELIHOODS = {
    Looks: "log_prob must be traceable, got a read of a tensor's value (test_contracts.py:",
    NoPmf: "log_pmf must be a probability of grey levels, got None",
    Detached: "log_prob must be differentiable in the outputs",
    Fussy: "it must work, got ValueError: too many images (test_contracts.py:",
    TwoPercent: "the probability of a pixel must be 1 over v/255, got 1.02 ",
    MeanOfPixels: "the probability of two pixels must be 1",
    SumOfImages: "log_prob must have the shape (S, B) = (2, 3), got (2,)",
    AcrossLanes: "a lane of log_prob must be what it is alone",
    Random: "log_prob must give the same twice",
    OffTheAxis: "mean must lie on [0, 1]",
    TooWide: "samples must be distributed as log_prob says",
    Unseeded: "sample with an equal generator must give the same twice",
    LooseLevels: "log_pmf must sum to 1 over the levels 0..255, got 1.725",
    Overflows: "mean for outputs of 10 must be finite",
    SteepMean: "the gradient of mean for outputs of 89 must be finite, got 3 of 3",
    Elsewhere: "scale must be on a known support",
    Nameless: "scale must be written as",
    NoOutputs: "outputs must be the number of decoder outputs per pixel",
    Mutable: "it must be hashable",
}


@pytest.mark.parametrize("broken", LIKELIHOODS, ids=lambda kind: kind.__name__)
def test_a_likelihood_that_breaks_a_rule_is_refused_with_the_number(broken: type) -> None:
    with pytest.raises(UserError) as fault:
        check_likelihood(broken())
    assert LIKELIHOODS[broken] in str(fault.value)


def test_the_minimum_keeps_the_contract_as_an_object_and_as_a_class() -> None:
    check_likelihood(Normal())
    check_likelihood(Normal)
    with pytest.raises(ContractError, match=r"1 over v/255, got 1\.02"):
        check_likelihood(TwoPercent)


@dataclass(frozen=True)
class Coupled:
    """Two channels, the second of which is centred half as far from 1/2 as the first."""

    scale: str = "density on v/255"
    outputs: int = 1
    channels: int = 2

    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        first, second = x.unflatten(-1, (2, -1)).unbind(-2)
        m = a.sigmoid().unflatten(-1, (2, -1)).unbind(-2)
        normal = torch.distributions.Normal(0.0, 0.1, validate_args=False)
        return (normal.log_prob(first - m[0]) + normal.log_prob(second - m[1] - first / 2 + 0.25)).sum(-1)

    def mean(self, a: Tensor) -> Tensor:
        return a.sigmoid()

    def sample(self, generator: torch.Generator, a: Tensor) -> Tensor:
        first, second = (
            (a.sigmoid() + 0.1 * torch.randn(a.shape, generator=generator, dtype=a.dtype)).unflatten(-1, (2, -1)).unbind(-2)
        )
        return torch.cat([first, second + first / 2 - 0.25], -1)


class OnePercentOfAPixel(Coupled):
    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        return super().log_prob(x, a) + 0.00995 * x.shape[-1] / 2


class SampledApart(Coupled):
    """Each channel has the right distribution by itself."""

    def sample(self, generator: torch.Generator, a: Tensor) -> Tensor:
        one, other = (super(SampledApart, self).sample(generator, a).unflatten(-1, (2, -1)) for _ in range(2))
        return torch.stack([one[..., 0, :], other[..., 1, :]], -2).flatten(-2)


class Interleaved(Coupled):
    """The channels of a pixel side by side."""

    def log_prob(self, x: Tensor, a: Tensor) -> Tensor:
        x, a = (t.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2) for t in (x, a))
        return super().log_prob(x, a)


class LevelsOfOneChannel(Coupled):
    def log_pmf(self, v: Tensor, a: Tensor) -> Tensor:
        return (0 * v - 5.5452).unflatten(-1, (2, -1))[..., 0, :].sum(-1)


class ManyChannels(Coupled):
    def __init__(self) -> None:
        super().__init__(channels=4)


COUPLED = {
    OnePercentOfAPixel: "the probability of a pixel must be 1 over v/255, got 1.01\n",
    SampledApart: "samples must be distributed as log_prob says",
    Interleaved: "log_prob must be the sum of what each pixel has",
    LevelsOfOneChannel: "log_pmf must sum to 1 over the levels 0..255 of a pixel, got 256\n",
    ManyChannels: "channels must be the number of those that are coupled, at most 3, got 4",
}


@pytest.mark.parametrize("broken", COUPLED, ids=lambda kind: kind.__name__)
def test_a_likelihood_of_coupled_channels_that_breaks_a_rule_is_refused(broken: type) -> None:
    with pytest.raises(ContractError) as fault:
        check_likelihood(broken())
    assert COUPLED[broken] in str(fault.value)


def test_a_likelihood_of_coupled_channels_keeps_the_contract() -> None:
    check_likelihood(Coupled())


# -------------------------------------------------------------------------------- networks that do not


class Codes(nn.Sequential):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return super().forward(x).chunk(2, dim=1)


def network(latent: int, outputs: int, middle: Sequence[nn.Module] = (), last: Sequence[nn.Module] = ()) -> tuple[nn.Module, ...]:
    encoder = Codes(nn.Flatten(), nn.Linear(64, 16), *middle, nn.Linear(16, 2 * latent))
    return encoder, nn.Sequential(nn.Linear(latent, 64 * outputs), nn.Unflatten(1, (outputs, *SHAPE)), *last)


def plain(image_shape: tuple[int, ...], latent: int, outputs: int) -> tuple[nn.Module, ...]:
    return network(latent, outputs)


def flat(image_shape: tuple[int, ...], latent: int, outputs: int) -> tuple[nn.Module, ...]:
    return network(latent, outputs, last=(nn.Flatten(2),))


def normalised(image_shape: tuple[int, ...], latent: int, outputs: int) -> tuple[nn.Module, ...]:
    return network(latent, outputs, middle=(nn.BatchNorm1d(16),))


def dropping(image_shape: tuple[int, ...], latent: int, outputs: int) -> tuple[nn.Module, ...]:
    return network(latent, outputs, middle=(nn.Dropout(),))


def double(image_shape: tuple[int, ...], latent: int, outputs: int) -> tuple[nn.Module, ...]:
    encoder, decoder = network(latent, outputs)
    return encoder.double(), decoder


def idle(image_shape: tuple[int, ...], latent: int, outputs: int) -> tuple[nn.Module, ...]:
    encoder, decoder = network(latent, outputs)
    decoder.spare = nn.Linear(2, 2)
    decoder.forward = lambda z: decoder[1](decoder[0](z))  # type: ignore[method-assign]
    return encoder, decoder


def single(image_shape: tuple[int, ...], latent: int, outputs: int) -> nn.Module:
    return network(latent, outputs)[0]


def unsized(image_shape: tuple[int, ...], latent: int) -> tuple[nn.Module, ...]:
    return network(latent, 1)


def tied(image_shape: tuple[int, ...], latent: int, outputs: int) -> tuple[nn.Module, ...]:
    encoder, decoder = network(latent, outputs)
    decoder.layer = encoder[1]
    shift = decoder.layer
    decoder.forward = lambda z: decoder[1](decoder[0](z) + shift.weight.sum() + shift.bias.sum())  # type: ignore[method-assign]
    return encoder, decoder


def frozen(image_shape: tuple[int, ...], latent: int, outputs: int) -> tuple[nn.Module, ...]:
    encoder, decoder = network(latent, outputs)
    return encoder.requires_grad_(False), decoder


NETWORKS = {
    tied: "encoder and decoder must have parameters of their own, got shared: 1.weight, 1.bias",
    frozen: "the encoder must be differentiable",
    flat: "the decoder's output must have the shape (B, K, C, H, W) = (3, 1, 1, 8, 8), got (3, 1, 64)",
    normalised: "the encoder must treat each image by itself",
    dropping: "the encoder must give the same twice",
    double: "the encoder must have parameters in float32, got torch.float64",
    idle: "unused: spare.weight, spare.bias",
    single: "it must return a pair of torch modules, got Codes",
    unsized: "TypeError",
}


@pytest.mark.parametrize("broken", NETWORKS, ids=lambda f: f.__name__)
def test_a_network_that_breaks_a_rule_is_refused_with_what_it_gave(broken: Any) -> None:
    check_network(plain)
    with pytest.raises(ContractError) as fault:
        check_network(broken)
    assert NETWORKS[broken] in str(fault.value)


# -------------------------------------------------------------------------------- the others


def softmax(x: Tensor) -> Tensor:
    return x.softmax(-1)


def nothing(x: Tensor) -> Tensor:
    return 0 * x


def fraying(x: Tensor) -> Tensor:
    return x + torch.rand_like(x)


def detached(x: Tensor) -> Tensor:
    return x.detach()


@pytest.mark.parametrize(
    ("broken", "message"),
    [(softmax, "each value by itself"), (nothing, "second moment"), (fraying, "itself"), (detached, "must be differentiable")],
)
def test_an_activation_that_breaks_a_rule_is_refused(broken: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_activation(broken)


def over_lanes(p: Any, beta: Tensor, free_bits: Tensor) -> Tensor:
    return (p.log_px.mean() + 0 * beta) - p.mean.square().sum() - p.log_var.square().sum()


def without_kl(p: Any, beta: Tensor, free_bits: Tensor) -> Tensor:
    return p.log_px.detach().mean((1, 2))


def looking(p: Any, beta: Tensor, free_bits: Tensor) -> Tensor:
    return p.log_px.mean((1, 2)) if p.mean.square().sum() < 1e9 else p.log_px.mean((1, 2)) + 1


def one_number(p: Any, beta: Tensor, free_bits: Tensor) -> Tensor:
    return p.log_px.mean()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (over_lanes, "a lane must be what it is alone"),
        (without_kl, "gradient must reach the encoder, got none"),
        (looking, "it must be traceable, got a read of a tensor's value"),
        (one_number, r"shape \(S,\) = \(2,\), got \(\)"),
    ],
)
def test_an_objective_that_breaks_a_rule_is_refused(broken: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_objective(broken)


def images(n: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(n, 8, 8)).astype(np.uint8)


def good() -> Any:
    return images(), np.arange(200) % 3


def standardised() -> Any:
    return images() / 255.0 - 0.5


def overlapping() -> Any:
    return {"images": images(), "train": np.arange(100), "validation": np.arange(95, 150), "test": np.arange(150, 200)}


def some_splits() -> Any:
    return {"images": images(), "train": np.arange(100)}


def too_few() -> Any:
    return images(20)


def fewer_labels() -> Any:
    return images(), np.arange(199)


def changing() -> Any:
    return images(seed=np.random.randint(1 << 30))


def words() -> Any:
    return "faces"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (standardised, r"levels 0..255 or floats in \[0, 1\], got float64 \(200, 8, 8\), values -0.5 to 0.5, the first beyond"),
        (overlapping, "5 images of the validation split are in the train split too"),
        (some_splits, "names the splits train: give all of"),
        (too_few, "split has . images, at least 10 are needed"),
        (fewer_labels, r"labels must be whole numbers, one per image, \(200,\); got int64 \(199,\)"),
        (changing, "the same images each time"),
        (words, "must be uint8 levels or floats in .*, got <U5"),
    ],
)
def test_a_data_set_that_breaks_a_rule_is_refused_with_what_came(broken: Any, message: str) -> None:
    check_dataset(good)
    with pytest.raises(UserError, match=message):
        check_dataset(broken)


def score(compute: Any) -> Score:
    return Score(key="test/mine", label="mine", better="lower", compute=compute)


def spoiling(trained: Any) -> dict[str, float]:
    with torch.no_grad():
        next(trained.vae.parameters()).zero_()
    return {"test/mine": 1.0}


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda trained: {"test/other": 1.0}, "must return a dict with 'test/mine', got {'test/other': 1.0}"),
        (
            lambda trained: {"test/mine": 1.0, "test/elbo": 0.0},
            "or 'test/mine/...' beside it; got 'test/elbo' too",
        ),
        (lambda trained: {"test/mine": float("nan")}, "'test/mine' must be a finite number, got nan"),
        (lambda trained: {"test/mine": torch.rand(()).item()}, "compute must give the same twice"),
        (lambda trained: trained.nothing, "compute must work, got AttributeError"),
        (spoiling, "compute must leave the model as it is"),
        (None, "must be a harness.Score with compute="),
    ],
)
def test_a_score_that_breaks_a_rule_is_refused(compute: Any, message: str) -> None:
    check_score(score(lambda trained: {"test/mine": trained.sample(3).mean().item()}))
    with pytest.raises(UserError) as fault:
        check_score(score(compute))
    assert message in str(fault.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"better": "down"}, "unknown better 'down'"),
        ({"tier": "E"}, "unknown tier 'E'"),
        ({"needs": ("labls",)}, "unknown need 'labls'; did you mean 'labels'"),
        ({"key": "mine"}, "a key such as 'test/sharpness'"),
    ],
)
def test_a_score_is_described_in_known_words(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Score(**{"key": "test/mine", "label": "mine"} | wrong)
