"""The mixture of discretized logistics, one channel and three. Shapes: (S, B, P), flat channel by channel."""

import math
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

from harness.data import Data, Split
from harness.errors import UserError
from harness.models.likelihoods import DiscretizedLogistic, LogisticMixture
from harness.spec import TrialSpec
from harness.testing import check_trials

GREY, COLOUR = LogisticMixture(components=3, channels=1), LogisticMixture(components=3, channels=3)
ENDS = torch.tensor([0.0, 1.0, 127.0, 254.0, 255.0])


def outputs(likelihood: LogisticMixture, pixels: int, seed: int = 0, images: int = 1) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    values = pixels * likelihood.channels
    return tuple(torch.randn(1, images, values, generator=g, dtype=torch.float64) for _ in range(likelihood.outputs))


def levels(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-200, 456, shape, generator=g).clamp(0, 255).double()


def many_digits(v: list[int], *of: list[list[float]]) -> mpmath.mpf:
    """log P of one pixel: v by channel; logits, a, log s and raw coefficients as [component][channel], by the formula."""
    logits, a, b, raw = (*of, None) if len(of) == 3 else of
    x = [mpmath.mpf(level) / 255 - mpmath.mpf(1) / 2 for level in v]
    weights = [mpmath.exp(mpmath.fsum(of_component) / len(v)) for of_component in logits]
    total = mpmath.mpf(0)
    for k, weight in enumerate(weights):
        t = [mpmath.tanh(c) for c in raw[k]] if raw else []
        shift = [0, t[0] * x[0], t[1] * x[0] + t[2] * x[1]] if raw else [0]
        product = weight / mpmath.fsum(weights)
        for c, level in enumerate(v):
            s = mpmath.exp(min(max(mpmath.mpf(b[k][c]) - 2, -7), 7))
            low, high = ((x[c] + side * mpmath.mpf(1) / 510 - a[k][c] - shift[c]) / s for side in (-1, 1))
            below = 0 if level == 0 else 1 / (1 + mpmath.exp(-low))
            product *= (1 if level == 255 else 1 / (1 + mpmath.exp(-high))) - below
        total += product
    return mpmath.log(total)


@pytest.mark.parametrize("size", [1.0, 30.0])
@pytest.mark.parametrize("likelihood", [GREY, COLOUR], ids=["grey", "colour"])
def test_log_prob_is_the_formula_with_many_digits(likelihood: LogisticMixture, size: float) -> None:
    pixels, channels, components = 6, likelihood.channels, likelihood.components
    out = tuple(size * o for o in outputs(likelihood, pixels))
    v = levels(1, 1, pixels * channels)
    kinds = torch.stack(out)[:, 0, 0].unflatten(-1, (channels, pixels)).unflatten(0, (-1, components))
    with mpmath.workdps(400):
        want = mpmath.fsum(
            many_digits(v[0, 0].view(channels, pixels)[:, i].int().tolist(), *kinds[..., i].tolist()) for i in range(pixels)
        )
    got, single = (likelihood.log_pmf(v.to(dtype), *(o.to(dtype) for o in out)).item() for dtype in (torch.float64, torch.float32))
    assert got == pytest.approx(float(want), rel=1e-9)
    assert single == pytest.approx(float(want), rel=1e-4)


def test_one_component_of_one_channel_is_the_discretized_logistic() -> None:
    one, single = LogisticMixture(components=1, channels=1), DiscretizedLogistic()
    logit, *out = outputs(one, 300)
    x = levels(1, 1, 300) / 255
    assert torch.equal(one.log_prob(x, logit, *out), single.log_prob(x, *out))
    torch.testing.assert_close(one.mean(logit, *out), single.mean(*out))


def test_without_coupling_three_channels_of_one_component_are_three_logistics() -> None:
    one, single = LogisticMixture(components=1, channels=3), DiscretizedLogistic()
    logit, a, b, raw = outputs(one, 50)
    x = levels(1, 1, 150) / 255
    torch.testing.assert_close(one.log_prob(x, logit, a, b, 0 * raw), single.log_prob(x, a, b))
    torch.testing.assert_close(one.mean(logit, a, b, 0 * raw), single.mean(a, b))
    assert (one.log_prob(x, logit, a, b, raw) - single.log_prob(x, a, b)).abs() > 1


@pytest.mark.parametrize("red", [0, 90, 255])
def test_green_and_blue_sum_out(red: int) -> None:
    """What is left is the mixture of red alone, whose probabilities sum to 1."""
    both, alone = LogisticMixture(components=2, channels=3), LogisticMixture(components=2, channels=1)
    out = outputs(both, 1, seed=red)
    levels = torch.arange(256.0).double()
    v = torch.cartesian_prod(torch.tensor([red]).double(), levels, levels)
    mass = both.log_pmf(v[None], *(o.expand(1, len(v), 3) for o in out)).exp().sum()
    logits, of_red = [o.mean(-1, keepdim=True) for o in out[:2]], [o[..., :1] for o in out[2:6]]
    torch.testing.assert_close(mass, alone.log_pmf(v[:1, None, :1], *logits, *of_red).exp().sum())


def test_pixels_and_images_are_apart_and_broadcast() -> None:
    """Images (N, 1, P) against latents (1, G, P), as every image against every latent."""
    out, v = outputs(COLOUR, 4, images=3), levels(2, 1, 12)
    pairs = COLOUR.log_pmf(v, *out)
    assert pairs.shape == (2, 3)
    by_pixel = [t.unflatten(-1, (3, 4)) for t in (v, *out)]
    apart = sum(COLOUR.log_pmf(*(t[..., i] for t in by_pixel)) for i in range(4))
    torch.testing.assert_close(pairs, apart)


@pytest.mark.parametrize("size", [-1e4, -300.0, -89.0, 89.0, 300.0, 1e4])
def test_extreme_outputs_leave_finite_values_and_gradients(size: float) -> None:
    """In float32, one output at a time and all at once."""
    v = ENDS.repeat(3)[None, None]
    for turn in [*([i] for i in range(COLOUR.outputs)), range(COLOUR.outputs)]:
        out = [torch.full((1, 1, 15), size if i in turn else 0.0, requires_grad=True) for i in range(COLOUR.outputs)]
        for value in (COLOUR.log_prob(v / 255, *out), COLOUR.mean(*out)):
            gradients = torch.autograd.grad(value.sum(), out, allow_unused=True)
            assert value.isfinite().all()
            assert all(g.isfinite().all() for g in gradients if g is not None)


def test_gradcheck() -> None:
    leaves = tuple(o.requires_grad_() for o in outputs(COLOUR, 2))
    x = torch.tensor([[[0.0, 7.0, 128.0, 255.0, 30.0, 200.0]]], dtype=torch.float64) / 255
    assert torch.autograd.gradcheck(lambda *out: COLOUR.log_prob(x, *out), leaves)


def test_the_mean_is_that_of_all_colours() -> None:
    """Summed over all reds and greens; blue's mean given both is that of a clipped logistic, within half a level."""
    one, single = LogisticMixture(components=1, channels=3), DiscretizedLogistic()
    x = torch.arange(256).double() / 255
    red, green = torch.cartesian_prod(x, x).unbind(-1)
    for seed in range(6):
        out = outputs(one, 1, seed)
        a, b, t = out[1].flatten(), out[2].flatten(), out[3].flatten().tanh()
        p_red = single.log_prob(red[:, None], a[:1], b[:1])
        p_green = single.log_prob(green[:, None], (a[1] + t[0] * (red - 0.5))[:, None], b[1:2])
        blue = single.mean(a[2] + t[1] * (red - 0.5) + t[2] * (green - 0.5), b[2])
        want = torch.stack([red, green, blue]) @ (p_red + p_green).exp()
        assert ((one.mean(*out).flatten() - want).abs() < torch.tensor([0.5, 1.0, 2.5]) / 255).all()


def test_samples_have_the_mean_and_the_coupling() -> None:
    n = 40_000
    out = outputs(COLOUR, 2, seed=1)
    draws = COLOUR.sample(torch.Generator().manual_seed(0), *(o.expand(1, n, 6) for o in out))[0]
    error = (draws.mean(0) - COLOUR.mean(*out)[0, 0]).abs()
    assert (error <= 4 * draws.std(0) / math.sqrt(n) + 2.5 / 255).all()


def test_draws_of_green_and_blue_follow_those_before_them() -> None:
    """Where nothing is clipped the slopes are the coefficients."""
    one, n = LogisticMixture(components=1, channels=3), 20_000
    logit, a, b = (torch.full((1, n, 3), value, dtype=torch.float64) for value in (0.0, 0.0, -1.5))
    t = torch.tensor([0.6, -0.5, 0.8], dtype=torch.float64)
    draws = one.sample(torch.Generator().manual_seed(0), logit, a, b, t.atanh().expand(1, n, 3))[0]
    centred = draws - 0.5
    green = torch.linalg.lstsq(centred[:, :1], centred[:, 1:2]).solution
    blue = torch.linalg.lstsq(centred[:, :2], centred[:, 2:]).solution
    torch.testing.assert_close(torch.cat([green, blue]).flatten(), t, rtol=0, atol=0.05)


def data_of(channels: int) -> Data:
    split = Split("train", torch.zeros(4, channels * 6, dtype=torch.uint8), None)
    return Data(name="made_up", image_shape=(channels, 2, 3), train=split, validation=split, test=split, digest="")


@pytest.mark.parametrize(("given", "of_data"), [(1, 3), (3, 1)])
def test_images_of_other_channels_are_refused(given: int, of_data: int) -> None:
    mixture: dict[str, Any] = {"likelihood": "logistic_mixture", "likelihood_args": {"channels": given}}
    specs = [TrialSpec(), TrialSpec(**mixture)]
    check_trials(specs, data_of(given))
    with pytest.raises(UserError, match=rf"logistic_mixture is for images of {given} channels?, mnist has {of_data}\n.*={of_data}"):
        check_trials(specs, data_of(of_data))


def test_the_number_of_components_is_a_whole_number() -> None:
    spec = TrialSpec(likelihood="logistic_mixture", likelihood_args={"channels": 3.0, "components": 7})
    assert spec.likelihood_args == {"channels": 3, "components": 7}
    assert spec.id == TrialSpec(likelihood="logistic_mixture", likelihood_args={"channels": 3, "components": 7}).id
    with pytest.raises(UserError, match="components must be a whole number of at least 1, got 0"):
        TrialSpec(likelihood="logistic_mixture", likelihood_args={"components": 0})
    with pytest.raises(UserError, match="channels"):
        TrialSpec(likelihood="logistic_mixture", likelihood_args={"channels": 2})
