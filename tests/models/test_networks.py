import math

import pytest
import torch
from tables import ACTIVATIONS, NETWORKS
from torch import nn

from harness.models.activations import gain, identity
from harness.models.networks import LaneLinear, Sizes
from harness.models.vae import build, parameters_of_one
from harness.spec import TrialSpec

TORCH = {
    "elu": nn.ELU(),
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(),
    "selu": nn.SELU(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "tanh": nn.Tanh(),
    "softplus": nn.Softplus(),
    "sigmoid": nn.Sigmoid(),
    "identity": nn.Identity(),
}


def test_the_reference_has_its_published_size() -> None:
    spec = TrialSpec(network="reference", latent=2, likelihood="bce")
    assert [parameters_of_one(build(spec, (1, 28, 28), lanes)) for lanes in (1, 3)] == [439_956] * 2


def test_the_reference_has_no_activation_after_the_decoders_first_layer() -> None:
    sizes = Sizes(image_shape=(1, 4, 5), latent=2, outputs=1, hidden=(64, 32), activations=("relu",))
    reference, mlp = NETWORKS["reference"](sizes)[1], NETWORKS["mlp"](sizes)[1]
    after = [[f is identity for f in decoder.body.activations] for decoder in (reference, mlp)]
    assert after == [[True, False, False, True], [False, False, True]]


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 8, 7)])
@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_of_encoder_and_decoder(name: str, shape: tuple[int, int, int]) -> None:
    vae = build(TrialSpec(network=name, latent=4, likelihood="gaussian_per_pixel"), shape, lanes=3)
    for lane in range(3):
        vae.reset(lane, torch.Generator().manual_seed(lane))
    pixels = math.prod(shape)
    assert [t.shape for t in vae.encoder(torch.rand(3, 5, pixels))] == [(3, 5, 4)] * 2
    assert [t.shape for t in vae.decoder(torch.rand(3, 5, 4))] == [(3, 5, pixels)] * 2


@pytest.mark.parametrize(
    ("name", "value", "digits"),
    [("relu", math.sqrt(2), 1e-6), ("identity", 1, 1e-6), ("leaky_relu", math.sqrt(2 / (1 + 0.01**2)), 1e-6), ("selu", 1, 1e-3)],
)
def test_known_gains(name: str, value: float, digits: float) -> None:
    assert gain(name) == pytest.approx(value, abs=digits)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_gain_makes_up_for_what_an_activation_takes(name: str) -> None:
    """Behind every activation a layer's output has the size that it would have behind none."""
    width, g = 1024, torch.Generator().manual_seed(0)
    layer, plain = LaneLinear(1, width, width, [gain(name)]), LaneLinear(1, width, width)
    layer.reset(0, torch.Generator().manual_seed(1))
    plain.reset(0, torch.Generator().manual_seed(1))
    x = torch.randn(1, 256, width, generator=g)
    assert layer(ACTIVATIONS[name](x)).square().mean().item() == pytest.approx(plain(x).square().mean().item(), rel=0.15)


def test_a_layer_starts_as_torchs_does_times_the_gain() -> None:
    layer, torchs = LaneLinear(1, 400, 300, [2.0]), nn.Linear(400, 300)
    layer.reset(0, torch.Generator().manual_seed(0))
    for ours, theirs in ((layer.weight / 2, torchs.weight), (layer.bias, torchs.bias)):
        assert ours.abs().max() <= 400**-0.5
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.15)


def test_lanes_are_separate_affine_maps() -> None:
    g = torch.Generator().manual_seed(0)
    layer = LaneLinear(3, 5, 4)
    for lane in range(3):
        layer.reset(lane, g)
    with torch.no_grad():
        layer.bias.normal_(generator=g)
    x = torch.randn(3, 7, 5, generator=g)
    want = torch.stack([nn.functional.linear(x[s], layer.weight[s].T, layer.bias[s, 0]) for s in range(3)])
    torch.testing.assert_close(layer(x), want)


def test_a_lanes_start_depends_on_its_generator_alone() -> None:
    three, one = LaneLinear(3, 5, 4, [2.0] * 3), LaneLinear(1, 5, 4, [2.0])
    for lane in range(3):
        three.reset(lane, torch.Generator().manual_seed(lane))
    one.reset(0, torch.Generator().manual_seed(2))
    assert torch.equal(three.weight[2:], one.weight)
    assert torch.equal(three.bias[2:], one.bias)
    assert not torch.equal(three.weight[0], three.weight[1])


def test_every_activation_has_a_counterpart() -> None:
    assert set(TORCH) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torchs_with_finite_gradients(name: str) -> None:
    x = torch.tensor([[-1e4, -30.0, -1.0, -1e-6], [0.0, 1e-6, 1.0, 1e4]], requires_grad=True)
    y = ACTIVATIONS[name](x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y.shape == x.shape
    assert gradient.isfinite().all()
    torch.testing.assert_close(y, TORCH[name](x))
