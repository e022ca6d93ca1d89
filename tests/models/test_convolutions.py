"""Convolutional networks: sizes of any image, weights at the start, and a step that is the same however it is taken."""

import math
from itertools import pairwise

import pytest
import torch
from steps import SMALL, assert_same
from torch import nn

from harness.data import Data, load_dataset
from harness.models.activations import gain
from harness.models.networks.convolutions import Block, Double, Halve, conv, draw, halvings
from harness.models.vae import build, mixable, parameters_of_one
from harness.spec import TrialSpec

SHAPES = [(1, 28, 28), (1, 8, 7), (3, 32, 32), (1, 25, 25), (3, 12, 16), (1, 28, 20), (1, 1, 3)]


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_pixel_is_seen_and_drawn(shape: tuple[int, int, int], kernel: int) -> None:
    torch.manual_seed(0)
    encoder, decoder = conv(shape, 3, 2, activation=nn.SiLU(), gain=1.0, widths=(4, 5, 6), kernel=kernel, blocks=1)
    x = torch.rand(2, *shape, requires_grad=True)
    mean, _ = encoder(x)
    out = decoder(mean)
    assert out.shape == (2, 2, *shape)
    (seen,) = torch.autograd.grad(mean.square().sum(), x)
    assert (seen != 0).any(0).all()  # of either image: one gradient of thousands may cancel to zero
    spread = decoder(torch.randn(64, 3)).std(0)
    assert (spread > 0).all()


def test_the_default_has_its_size() -> None:
    spec = TrialSpec(network="conv", latent=20, likelihood="bernoulli")
    down = (16 * 16 + 16) + (16 * 16 * 32 + 32) + (32 * 49 * 40 + 40)
    up = (20 * 32 * 49 + 32 * 49) + (32 * 16 * 16 + 16) + (16 * 16 + 1)
    assert parameters_of_one(build(spec, (1, 28, 28))) == down + up
    block = 32 * 32 * 10 + 2 * 32
    assert parameters_of_one(build(spec.derive(network="resnet"), (1, 28, 28))) == down + up + 2 * block


@pytest.mark.parametrize("size", [(28, 28), (25, 7), (1, 2)])
def test_a_transposed_convolution_goes_back_where_the_other_came_from(size: tuple[int, int]) -> None:
    for (before, after), kernel in zip(pairwise(halvings(size, 2)), (3, 4), strict=True):
        x = torch.rand(2, 3, *before)
        assert Halve(3, 4, kernel, before)(x).shape == (2, 4, *after)
        assert Double(4, 3, kernel, before)(torch.rand(2, 4, *after)).shape == x.shape


@pytest.mark.parametrize("activation", ["relu", "elu", "sigmoid", "identity"])
@pytest.mark.parametrize("kind", [nn.Linear, Halve, Double])
def test_the_gain_makes_up_for_what_an_activation_takes(kind: type[nn.Module], activation: str) -> None:
    """Away from the borders each layer's output has the size behind an activation that it has behind none: 1/3 and the biases."""
    torch.manual_seed(0)
    inputs, coarse = 64, 12 if kind is Double else 24
    arguments = (inputs, 2048) if kind is nn.Linear else (inputs, 64, 4, (24, 24))
    x = torch.randn(256, inputs) if kind is nn.Linear else torch.randn(8, inputs, coarse, coarse)
    f = {"relu": torch.relu, "elu": nn.functional.elu, "sigmoid": torch.sigmoid, "identity": lambda x: x}[activation]
    out = draw(kind(*arguments), gain(activation))(f(x))
    out = out if kind is nn.Linear else out[:, :, 2:-2, 2:-2]
    layer = draw(kind(*arguments))
    fan = inputs if kind is nn.Linear else inputs * (4 if kind is Double else 16)
    assert layer.weight.abs().max().item() == pytest.approx(fan**-0.5, rel=1e-2)
    assert out.square().mean().item() == pytest.approx(1 / 3 + 1 / (3 * fan), rel=0.15)


def test_a_residual_block_keeps_what_it_is_given() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 32, 9, 9)
    block = Block(32, torch.relu, gain("relu"))
    added = block(x) - x
    assert 0 < added.square().mean().item() < 0.5
    nn.init.zeros_(block.narrow.weight)
    nn.init.zeros_(block.narrow.bias)
    assert torch.equal(block(x), x)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


SMALLER = SMALL.derive(network_args={"widths": (4, 6), "kernel": 3}, network="conv")


@pytest.mark.parametrize("network", ["conv", "resnet"])
def test_the_graph_is_the_step(network: str, digits: Data) -> None:
    assert_same([SMALLER.derive(network=network)], digits, "graph")


@pytest.mark.slow
@pytest.mark.parametrize("network", ["conv", "resnet"])
def test_compiled_is_the_same(network: str, digits: Data) -> None:
    """With as many channels as the kernel multiplies without gathering patches."""
    assert_same([SMALLER.derive(network=network, network_args={"widths": (8, 16), "kernel": 3})], digits, "compiled")


def test_lanes_of_one_activation_share_a_program() -> None:
    conv = TrialSpec(network="conv", latent=3)
    assert mixable([conv, conv.derive(seed=1, learning_rate=1e-4), conv.derive(likelihood="mse")])
    assert not mixable([conv, conv.derive(activation="relu")])
    assert not mixable([conv, conv.derive(network_args={"kernel": 3})])


def test_lanes_are_models_of_their_own() -> None:
    vae = build(TrialSpec(network="conv", latent=3), (3, 6, 5), lanes=2)
    alone = build(TrialSpec(network="conv", latent=3), (3, 6, 5))
    for lane in range(2):
        vae.reset(lane, torch.Generator().manual_seed(lane))
    alone.reset(0, torch.Generator().manual_seed(1))
    x = torch.rand(2, 4, math.prod((3, 6, 5)))
    together = (*vae.encoder(x), *vae.decoder(x[..., :3]))
    for one, other in zip(together, (*alone.encoder(x[1:]), *alone.decoder(x[1:, :, :3])), strict=True):
        torch.testing.assert_close(one[1:], other)
