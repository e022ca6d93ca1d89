"""Every likelihood is held to the same laws. Shapes as in a VAE: (S, B, P), shared scalars (S, 1, 1)."""

import math

import mpmath
import pytest
import torch
from torch import Tensor

from harness.likelihoods import LEVELS, LIKELIHOODS, LOG_SCALE_FLOOR, SIGMA_FLOOR, ContinuousBernoulli, Likelihood
from harness.spec import LIKELIHOOD_SCALES

GREY = torch.arange(256, dtype=torch.float64) / LEVELS
# Where x lives, by the scale that a likelihood declares: its points, and whether to sum or to integrate over them.
SUPPORT = {
    "{0,1}": (torch.tensor([0.0, 1.0], dtype=torch.float64), False),
    "grey levels": (GREY, False),
    "0..255": (GREY, False),
    "v/255": (torch.linspace(-12, 13, 250_001, dtype=torch.float64), True),
    "(v+u)/256": (torch.linspace(0, 1, 100_001, dtype=torch.float64), True),
}


def outputs(
    likelihood: Likelihood, pixels: int, seed: int = 0, images: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """Random decoder outputs, with the shared scalars behind them."""
    g = torch.Generator().manual_seed(seed)
    own = [torch.randn(1, images, pixels, generator=g, dtype=dtype) for _ in range(likelihood.params)]
    return (*own, *(torch.randn(1, 1, 1, generator=g, dtype=dtype) for _ in range(likelihood.shared)))


def at(likelihood: Likelihood, x: Tensor, out: tuple[Tensor, ...]) -> Tensor:
    """log p of every point of x (N,) for one pixel."""
    return likelihood.log_prob(x.view(1, -1, 1), *(o.expand(1, len(x), 1) for o in out))[0]


def total(name: str, out: tuple[Tensor, ...]) -> Tensor:
    points, continuous = SUPPORT[LIKELIHOOD_SCALES[name].of]
    p = at(LIKELIHOODS[name], points, out).exp()
    return torch.trapezoid(p, points) if continuous else p.sum()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_total_probability_is_one(name: str, seed: int) -> None:
    mass = total(name, outputs(LIKELIHOODS[name], 1, seed))
    if LIKELIHOOD_SCALES[name].kind == "pseudo":
        points = SUPPORT["(v+u)/256"][0]
        area = torch.trapezoid(at(LIKELIHOODS[name], points, outputs(LIKELIHOODS[name], 1, seed)).exp(), points)
        assert abs(mass - 1) > 0.1
        assert abs(area - 1) > 0.1
    else:
        assert mass.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_prob_sums_over_pixels_and_keeps_images_apart(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    out = outputs(likelihood, pixels=5, images=3)
    x = observed(likelihood, torch.tensor([[0.0, 3, 100, 200, 255]], dtype=torch.float64).expand(1, 3, 5))
    together = likelihood.log_prob(x, *out)
    apart = [
        sum(
            at(likelihood, x[0, b, p].view(1), tuple(o if o.shape[-1] == 1 else o[:, b : b + 1, p : p + 1] for o in out)).item()
            for p in range(5)
        )
        for b in range(3)
    ]
    assert together.shape == (1, 3)
    assert together[0].tolist() == pytest.approx(apart, rel=1e-12)


def observed(likelihood: Likelihood, v: Tensor, u: float = 0.5) -> Tensor:
    return likelihood.observe(v, torch.full_like(v, u))


@pytest.mark.parametrize("extreme", [-1e4, -1e2, 1e2, 1e4])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_extreme_outputs_leave_finite_values_and_gradients(name: str, extreme: float) -> None:
    likelihood = LIKELIHOODS[name]
    x = observed(likelihood, torch.tensor([[[0.0, 1.0, 127.0, 254.0, 255.0]]]))
    for turn in range(likelihood.params + likelihood.shared):
        out = [torch.zeros(1, 1, 5) for _ in range(likelihood.params)] + [torch.zeros(1, 1, 1)] * likelihood.shared
        out[turn] = torch.full_like(out[turn], extreme)
        leaves = [o.requires_grad_() for o in out]
        log_p = likelihood.log_prob(x, *leaves)
        gradients = torch.autograd.grad(log_p.sum(), leaves)
        assert log_p.isfinite().all()
        assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradcheck(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    v = torch.tensor([[[0.0, 7.0, 128.0, 255.0]]], dtype=torch.float64)
    x = observed(likelihood, v)
    leaves = tuple(o.requires_grad_() for o in outputs(likelihood, 4))
    assert torch.autograd.gradcheck(lambda *out: likelihood.log_prob(x, *out), leaves)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_mean_is_the_mean_of_samples(name: str) -> None:
    likelihood, n = LIKELIHOODS[name], 200_000
    out = outputs(likelihood, pixels=6, seed=3)
    drawn = likelihood.sample(torch.Generator().manual_seed(0), *(o.expand(1, n, -1) if o.shape[-1] > 1 else o for o in out))[0]
    standard_error = drawn.std(0) / math.sqrt(n)
    slack = 0.5 / LEVELS if name == "discretized_logistic" else 0.0  # its mean is that of the clipped logistic
    error = (likelihood.mean(*out)[0, 0] - drawn.mean(0)).abs()
    assert (error <= 3 * standard_error + slack).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_lie_where_the_data_lie(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    drawn = likelihood.sample(torch.Generator().manual_seed(0), *outputs(likelihood, pixels=500))
    match LIKELIHOOD_SCALES[name].of:
        case "{0,1}":
            assert drawn.unique().tolist() == [0, 1]
        case "0..255":
            torch.testing.assert_close(drawn * LEVELS, (drawn * LEVELS).round())
            assert drawn.min() >= 0
            assert drawn.max() <= 1
        case "(v+u)/256":
            assert 0 < drawn.min() < drawn.max() < 1


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


def test_bce_is_torchs_cross_entropy_from_logits() -> None:
    x, logit = torch.rand(1, 3, 7, dtype=torch.float64), outputs(LIKELIHOODS["bce"], 7, images=3)[0] * 5
    p = logit.sigmoid()
    want = (x * p.log() + (1 - x) * (1 - p).log()).sum(-1)
    torch.testing.assert_close(LIKELIHOODS["bce"].log_prob(x, logit), want)
    # From a probability in fp32 this would be 100 nats, torch's cut-off, or infinite.
    assert LIKELIHOODS["bce"].log_prob(torch.zeros(1), torch.tensor([30.0])).item() == pytest.approx(-30)


def test_mse_is_squared_error_up_to_its_constant() -> None:
    x, a = torch.rand(1, 4, 9, dtype=torch.float64), outputs(LIKELIHOODS["mse"], 9, images=4)[0]
    want = -0.5 * (x - a.sigmoid()).square().sum(-1) - 4.5 * math.log(2 * math.pi)
    torch.testing.assert_close(LIKELIHOODS["mse"].log_prob(x, a), want)


@pytest.mark.parametrize("name", ["mse", "gaussian_shared", "gaussian_per_pixel"])
def test_gaussians_are_torchs_normal(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    x, out = torch.rand(1, 4, 9, dtype=torch.float64), outputs(likelihood, 9, images=4)
    sigma = likelihood.noise_scale(*out)
    want = torch.distributions.Normal(out[0].sigmoid(), sigma).log_prob(x).sum(-1)
    torch.testing.assert_close(likelihood.log_prob(x, *out), want)
    assert sigma.expand(1, 4, 9).shape == x.shape


@pytest.mark.parametrize("name", ["gaussian_shared", "gaussian_per_pixel"])
def test_a_learned_sigma_starts_at_a_quarter_and_stops_at_half_a_grey_level(name: str) -> None:
    scale = LIKELIHOODS[name].noise_scale
    assert scale(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(0.25 + 1 / 510)
    assert scale(torch.zeros(1), torch.tensor([-1e4])).item() == pytest.approx(1 / 510) == SIGMA_FLOOR


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
@pytest.mark.parametrize("b", [-1.0, 0.0, 1.5])
def test_discretized_logistic_is_a_difference_of_cdfs(a: float, b: float) -> None:
    likelihood = LIKELIHOODS["discretized_logistic"]
    out = tuple(torch.full((1, 1, 1), t, dtype=torch.float64) for t in (a, b))
    m, s = likelihood.centre(*out).item(), likelihood.log_scale(*out).exp().item()
    edges = (torch.arange(257, dtype=torch.float64) - 0.5) / LEVELS
    cdf = torch.sigmoid((edges - m) / s)
    cdf[0], cdf[-1] = 0, 1  # the tails are open
    torch.testing.assert_close(at(likelihood, GREY, out).exp(), cdf.diff(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("a", [-0.7, -0.5, 0.0, 0.2, 0.5])
@pytest.mark.parametrize("b", [-3.0, 0.0, 2.0])
def test_discretized_logistics_mean_is_its_pmfs(a: float, b: float) -> None:
    likelihood = LIKELIHOODS["discretized_logistic"]
    out = tuple(torch.full((1, 1, 1), t, dtype=torch.float64) for t in (a, b))
    mean = (at(likelihood, GREY, out).exp() * GREY).sum().item()
    assert likelihood.mean(*out).item() == pytest.approx(mean, abs=0.5 / LEVELS)
    drawn = likelihood.sample(torch.Generator().manual_seed(1), *(o.expand(1, 100_000, 1) for o in out))
    assert drawn.mean().item() == pytest.approx(mean, abs=3 * drawn.std().item() / math.sqrt(100_000) + 1e-6)


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
