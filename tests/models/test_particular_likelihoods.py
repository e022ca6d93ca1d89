"""What is particular to one likelihood or a few; the laws of the whole table are in test_likelihoods.py."""

import math
from typing import Any

import mpmath
import pytest
import torch
from tables import LIKELIHOODS
from test_likelihoods import GREY, PMFS, at, levels_of, outputs, pmf
from torch import Tensor
from torch.distributions import Normal
from torch.utils._python_dispatch import TorchDispatchMode

from harness.models.likelihoods import LOG_SCALE_FLOOR, MAX_LEVEL, SIGMA_FLOOR, ContinuousBernoulli, Gaussian


def test_bernoulli_observes_with_the_frequency_of_the_grey_level() -> None:
    n, v = 100_000, torch.tensor([0.0, 1.0, 64.0, 200.0, 255.0])
    u = torch.rand(n, 5, generator=torch.Generator().manual_seed(0))
    share = LIKELIHOODS["bernoulli"].observe(v.expand(n, 5), u).mean(0)
    p = v / 255
    assert ((share - p).abs() <= 4 * (p * (1 - p) / n).sqrt()).all()
    assert (share[0], share[-1]) == (0, 1)


def test_half_thresholds_in_the_middle() -> None:
    assert LIKELIHOODS["bernoulli"].observe(torch.tensor([0.0, 127.0, 128.0, 255.0]), 0.5).tolist() == [0, 0, 1, 1]


def test_dequantisation_fills_the_unit_interval() -> None:
    observe = LIKELIHOODS["continuous_bernoulli"].observe
    assert observe(torch.tensor([0.0, 255.0]), torch.tensor([0.0, 1.0])).tolist() == [0, 1]


def test_bce_is_from_logits() -> None:
    """From a probability in fp32 this would be 100 nats, torch's cut-off, or infinite."""
    assert LIKELIHOODS["bce"].log_prob(torch.zeros(1), torch.tensor([30.0])).item() == pytest.approx(-30)


def test_mse_is_squared_error_up_to_its_constant() -> None:
    x, a = torch.rand(1, 4, 9, dtype=torch.float64), outputs(LIKELIHOODS["mse"], 9, images=4)[0]
    want = -0.5 * (x - a.sigmoid()).square().sum(-1) - 4.5 * math.log(2 * math.pi)
    torch.testing.assert_close(LIKELIHOODS["mse"].log_prob(x, a), want)


def test_a_fixed_sigma_has_a_value() -> None:
    likelihood, v = Gaussian(learned="nothing", sigma=0.1), levels_of(1, 4, 9)
    x, a = v / 255, outputs(LIKELIHOODS["mse"], 9, images=4)[0]
    normal = Normal(a.sigmoid(), 0.1)
    torch.testing.assert_close(likelihood.log_prob(x, a), normal.log_prob(x).sum(-1))
    product = likelihood.exponential_family(a)
    pairs = (x * product.eta).sum(-1) + likelihood.log_prob(torch.zeros_like(x), a) - product.precision / 2 * x.square().sum(-1)
    torch.testing.assert_close(pairs, normal.log_prob(x).sum(-1))
    samples = likelihood.sample(torch.Generator().manual_seed(0), a.expand(10_000, 4, 9))
    assert (samples - a.sigmoid()).std().item() == pytest.approx(likelihood.noise_scale(a).item(), rel=0.01)
    inner = (v > 0) & (v < 255) & ((x - a.sigmoid()).abs() < 0.5)
    want = (normal.cdf(x + 0.5 / 255) - normal.cdf(x - 0.5 / 255)).log()
    got = likelihood.log_pmf(v[..., None], a[..., None])
    torch.testing.assert_close(got[inner], want[inner], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "start"), [("gaussian_shared", 0.25), ("gaussian_per_pixel", 0.25), ("laplace", 0.15)])
def test_a_learned_scale_starts_at_the_mean_images_error_and_stops_at_half_a_grey_level(name: str, start: float) -> None:
    scale = LIKELIHOODS[name].noise_scale
    assert scale(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(start + 1 / 510)
    assert scale(torch.zeros(1), torch.tensor([-1e4])).item() == pytest.approx(1 / 510) == SIGMA_FLOOR


def test_categorical_has_small_bins() -> None:
    likelihood = LIKELIHOODS["categorical"]
    first, width = likelihood.bounds(GREY)
    chosen = likelihood.bin_of(torch.arange(256.0))
    assert (chosen.bincount() == width).all()
    assert [(chosen == b).nonzero().min().item() for b in range(16)] == first.tolist()
    assert width[[0, -1]].tolist() == [1, 1]
    assert set(width[1:-1].tolist()) == {18, 19}


class DividesByInverse(TorchDispatchMode):
    """Quotients by a number are products with its inverse, as on a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is torch.ops.aten.div.Tensor and not isinstance(args[1], Tensor):
            return args[0] * torch.tensor(1.0 / args[1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", PMFS)
def test_pmfs_do_not_depend_on_how_a_device_divides(name: str) -> None:
    """On an H100 254 / 14 * 14 was above 254 and the last bin of `categorical` empty."""
    likelihood = LIKELIHOODS[name]
    out, v = outputs(likelihood, 1, seed=3, dtype=torch.float32), torch.arange(256.0)[None, :, None]
    want = likelihood.log_pmf(v, *out)
    with DividesByInverse():
        got = likelihood.log_pmf(v, *out)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["beta_binomial", "categorical"])
def test_level_means_are_exact(name: str) -> None:
    out = outputs(LIKELIHOODS[name], 1, seed=5)
    mean = (pmf(LIKELIHOODS[name], out).exp() * GREY).sum().item()
    assert LIKELIHOODS[name].mean(*out).item() == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("name", ["discretized_logistic", "beta_binomial", "categorical"])
def test_levels_are_drawn_as_often_as_their_pmf_says(name: str) -> None:
    likelihood, n = LIKELIHOODS[name], 40_000
    out = outputs(likelihood, 1, seed=2)
    samples = likelihood.sample(torch.Generator().manual_seed(0), *(o.expand(1, n, 1) for o in out))
    counts = (samples * MAX_LEVEL).round().long().flatten().bincount(minlength=256).double()
    want = pmf(likelihood, out).exp() * n
    assert ((counts - want) / (want + 1).sqrt()).abs().max() < 5
    assert ((counts - want).square() / want).sum() < 255 + 4 * math.sqrt(2 * 255)


LOGITS = [0.0, 1e-30, 1e-8, 1e-4, 1e-3, 0.01, 0.0499, 0.05, 0.0501, 0.1, 1.0, 5.0, 16.0, 17.0, 30.0, 88.0, 100.0, 300.0]


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("size", LOGITS)
def test_continuous_bernoulli_against_many_digits(size: float, sign: int) -> None:
    with mpmath.workdps(120):
        a = mpmath.mpf(size)
        log_norm = float(mpmath.log(mpmath.sinh(a / 2) / (a / 2))) if size else 0.0
        centre = 1 / (1 - mpmath.exp(-a)) - 1 / a if size else mpmath.mpf(0.5)
        mean = float(centre if sign > 0 else 1 - centre)
    likelihood = ContinuousBernoulli()
    exact, short = (torch.tensor([sign * size], dtype=d) for d in (torch.float64, torch.float32))
    assert likelihood.log_norm(exact).item() == pytest.approx(log_norm, rel=1e-10, abs=1e-12)
    assert likelihood.mean(exact).item() == pytest.approx(mean, abs=1e-10)
    assert likelihood.log_norm(short).item() == pytest.approx(log_norm, rel=1e-5, abs=1e-6)
    assert likelihood.mean(short).item() == pytest.approx(mean, abs=2e-5)


@pytest.mark.parametrize("logit", [-250.0, -20.0, -1.0, -0.01, 0.0, 0.01, 1.0, 20.0, 250.0])
def test_continuous_bernoulli_keeps_its_gradient(logit: float) -> None:
    """d/dl log p(x) = x - E[x]: torch.distributions has lost it above |l| = 16."""
    leaf = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
    likelihood = ContinuousBernoulli()
    x = torch.tensor([0.3], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(likelihood.log_prob(x, leaf), leaf)
    assert gradient.item() == pytest.approx(0.3 - likelihood.mean(leaf).item(), abs=1e-9)


@pytest.mark.parametrize("a", [-0.7, -0.5, 0.0, 0.2, 0.5])
@pytest.mark.parametrize("b", [-3.0, 0.0, 2.0])
def test_discretized_logistics_mean_is_its_pmfs(a: float, b: float) -> None:
    likelihood = LIKELIHOODS["discretized_logistic"]
    out = tuple(torch.full((1, 1, 1), t, dtype=torch.float64) for t in (a, b))
    mean = (at(likelihood, GREY, out).exp() * GREY).sum().item()
    assert likelihood.mean(*out).item() == pytest.approx(mean, abs=0.5 / MAX_LEVEL)
    samples = likelihood.sample(torch.Generator().manual_seed(1), *(o.expand(1, 100_000, 1) for o in out))
    assert samples.mean().item() == pytest.approx(mean, abs=3 * samples.std().item() / math.sqrt(100_000) + 1e-6)


@pytest.mark.parametrize(("centre", "level"), [(-20.0, 0), (-1000.0, 0), (20.0, 255), (1000.0, 255)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_discretized_logistics_open_tails_hold_all_mass(centre: float, level: int, dtype: torch.dtype) -> None:
    """A centre far beyond the end of the axis, at the smallest scale, means: surely that end."""
    out = torch.full((1, 1, 1), centre, dtype=dtype), torch.full((1, 1, 1), LOG_SCALE_FLOOR - 1, dtype=dtype)
    log_p = at(LIKELIHOODS["discretized_logistic"], GREY.to(dtype), out)
    assert log_p[level].item() == pytest.approx(0, abs=1e-6)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_discretized_logistic_in_single_precision() -> None:
    likelihood = LIKELIHOODS["discretized_logistic"]
    out = outputs(likelihood, pixels=256)
    short = likelihood.log_prob(GREY.float().view(1, 1, -1), *(o.float() for o in out))
    assert short.item() == pytest.approx(likelihood.log_prob(GREY.view(1, 1, -1), *out).item(), rel=1e-5)
