"""Every likelihood is held to the same laws. Shapes as in a VAE: (S, B, P), shared scalars (S, 1, 1)."""

import math
from collections.abc import Callable, Mapping

import mpmath
import numpy as np
import pytest
import torch
from scipy import special, stats
from tables import LIKELIHOODS, SCALES
from torch import Tensor
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli
from torch.distributions import Laplace, Normal, kl_divergence

from harness.models.likelihoods import MAX_LEVEL, Likelihood
from harness.models.objectives import elbo
from harness.models.vae import build
from harness.spec import TrialSpec

GREY = torch.arange(256, dtype=torch.float64) / MAX_LEVEL
# Where x lives, by the scale that a likelihood declares: its points, and whether to sum or to integrate over them.
SUPPORT = {
    "{0,1}, dynamic": (torch.tensor([0.0, 1.0], dtype=torch.float64), False),
    "grey levels": (GREY, False),
    "0..255": (GREY, False),
    "v/255": (torch.linspace(-12, 13, 250_001, dtype=torch.float64), True),
    "(v+u)/256": (torch.linspace(0, 1, 100_001, dtype=torch.float64), True),
}
PMFS = [name for name in LIKELIHOODS if name not in ("bce", "bernoulli")]
PRODUCTS = ["bce", "bernoulli", "mse", "gaussian_shared", "continuous_bernoulli"]


def cross_entropy(x: Tensor, logit: Tensor) -> Tensor:
    p = 1 / (1 + torch.exp(-logit))
    return x * p.log() + (1 - x) * (1 - p).log()


def logistic_levels(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    v, m, s = (x * 255).round().numpy(), 0.5 + a.detach().numpy(), np.exp(-2 + b.detach().numpy())
    low, high = np.where(v == 0, -np.inf, (v - 0.5) / 255), np.where(v == 255, np.inf, (v + 0.5) / 255)
    left = stats.logistic.cdf(high, m, s) - stats.logistic.cdf(low, m, s)
    right = stats.logistic.sf(low, m, s) - stats.logistic.sf(high, m, s)
    return torch.from_numpy(np.log(np.where(v / 255 < m, left, right)))


def mixture(x: Tensor, *out: Tensor) -> Tensor:
    """Five discretized logistics of one channel."""
    logits, a, b = (torch.stack(out[i : i + 5]) for i in (0, 5, 10))
    log_p = torch.stack([logistic_levels(x, *of) for of in zip(a, b, strict=True)])
    return torch.from_numpy(special.logsumexp((logits.log_softmax(0) + log_p).detach().numpy(), axis=0))


def beta_binomial(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    alpha, beta = a.detach().exp().numpy(), b.detach().exp().numpy()
    return torch.from_numpy(stats.betabinom.logpmf((x * 255).round().numpy(), 255, alpha, beta))


def binned(x: Tensor, *out: Tensor) -> Tensor:
    bins = np.array([0] + [1 + i * 14 // 254 for i in range(254)] + [15])
    logits = np.stack([o.detach().numpy() for o in out], -1)
    log_p = special.log_softmax(logits, -1)[..., bins] - np.log(np.bincount(bins)[bins])  # of all levels, (..., 256)
    v = (x * 255).round().long().numpy()[..., None]
    return torch.from_numpy(np.take_along_axis(np.broadcast_to(log_p, (*v.shape[:-1], 256)), v, -1)[..., 0])


# log p of every pixel, written from the definitions with torch.distributions and scipy; float64, moderate outputs.
REFERENCE: Mapping[str, Callable[..., Tensor]] = {
    "bce": cross_entropy,
    "bernoulli": cross_entropy,
    "mse": lambda x, a: Normal(a.sigmoid(), 1.0).log_prob(x),
    "gaussian_shared": lambda x, a, s: Normal(a.sigmoid(), 1 / 510 + s.exp() / 4).log_prob(x),
    "gaussian_per_pixel": lambda x, a, s: Normal(a.sigmoid(), 1 / 510 + s.exp() / 4).log_prob(x),
    "continuous_bernoulli": lambda x, a: TorchContinuousBernoulli(logits=a).log_prob(x),
    "laplace": lambda x, a, s: Laplace(a.sigmoid(), 1 / 510 + 0.15 * s.exp()).log_prob(x),
    "discretized_logistic": logistic_levels,
    "logistic_mixture": mixture,
    "beta_binomial": beta_binomial,
    "categorical": binned,
}


def outputs(
    likelihood: Likelihood, pixels: int, seed: int = 0, images: int = 1, lanes: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """Random decoder outputs, with the shared scalars behind them."""
    g = torch.Generator().manual_seed(seed)
    own = [torch.randn(lanes, images, pixels, generator=g, dtype=dtype) for _ in range(likelihood.outputs)]
    return (*own, *(torch.randn(lanes, 1, 1, generator=g, dtype=dtype) for _ in range(likelihood.shared)))


def model_inputs(likelihood: Likelihood, v: Tensor, u: float = 0.5) -> Tensor:
    return likelihood.observe(v, torch.full_like(v, u))


def levels_of(*shape: int, seed: int = 0) -> Tensor:
    """Random grey levels, the ends among them."""
    g = torch.Generator().manual_seed(seed)
    return (torch.randint(-200, 456, shape, generator=g).clamp(0, 255)).double()


def at(likelihood: Likelihood, x: Tensor, out: tuple[Tensor, ...]) -> Tensor:
    """log p of every point of x (N,) for one pixel."""
    return likelihood.log_prob(x.view(1, -1, 1), *(o.expand(1, len(x), 1) for o in out))[0]


def total(name: str, out: tuple[Tensor, ...]) -> Tensor:
    points, continuous = SUPPORT[SCALES[name].of]
    p = at(LIKELIHOODS[name], points, out).exp()
    return torch.trapezoid(p, points) if continuous else p.sum()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_total_probability_is_one(name: str, seed: int) -> None:
    mass = total(name, outputs(LIKELIHOODS[name], 1, seed))
    if SCALES[name].kind == "pseudo":
        points = SUPPORT["(v+u)/256"][0]
        area = torch.trapezoid(at(LIKELIHOODS[name], points, outputs(LIKELIHOODS[name], 1, seed)).exp(), points)
        assert abs(mass - 1) > 0.1
        assert abs(area - 1) > 0.1
    else:
        assert mass.item() == pytest.approx(1, abs=1e-6)


def pmf(likelihood: Likelihood, out: tuple[Tensor, ...]) -> Tensor:
    """log P of all 256 levels for one pixel."""
    levels = torch.arange(256, dtype=out[0].dtype).view(1, -1, 1)
    return likelihood.log_pmf(levels, *(o.expand(1, 256, 1) for o in out))[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 10.0, 1e4])
@pytest.mark.parametrize("name", PMFS)
def test_grey_levels_have_probabilities_that_sum_to_one(name: str, size: float, dtype: torch.dtype) -> None:
    for seed in range(8):
        out = tuple(size * o for o in outputs(LIKELIHOODS[name], 1, seed, dtype=dtype))
        log_p = pmf(LIKELIHOODS[name], out)
        assert log_p.dtype == dtype
        assert log_p.double().exp().sum().item() == pytest.approx(1, abs=1e-9 if dtype == torch.float64 else 2e-5)


def test_only_the_bernoullis_give_grey_levels_no_probability() -> None:
    v = levels_of(1, 1, 3)
    assert [n for n, k in LIKELIHOODS.items() if k.log_pmf(v, *outputs(k, 3)) is not None] == PMFS
    assert [n for n in PMFS if not TrialSpec(likelihood=n).has_grey_pmf] == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", PMFS)
def test_grey_levels_have_the_probability_of_their_bin(name: str, seed: int) -> None:
    """The reference's sum, or its density integrated over each bin by 60 Gauss-Legendre nodes; the tails are what is left."""
    likelihood = LIKELIHOODS[name]
    out = outputs(likelihood, 1, seed)
    of, levels = SCALES[name].of, torch.arange(256, dtype=torch.float64)
    if of == "0..255":
        want = REFERENCE[name](GREY, *(o.flatten() for o in out)).exp()
    else:
        nodes, weights = (torch.from_numpy(t) for t in np.polynomial.legendre.leggauss(60))
        bins, start = (255, (levels - 0.5) / 255) if of == "v/255" else (256, levels / 256)
        x = start[:, None] + (nodes + 1) / 2 / bins
        want = (REFERENCE[name](x, *(o.flatten() for o in out)).exp() * weights).sum(1) / 2 / bins
        if of == "v/255":
            far, mean = torch.linspace(0.5 / 255, 12, 1_000_001, dtype=torch.float64), out[0].sigmoid().item()
            below, above = (REFERENCE[name](t, *(o.flatten() for o in out)).exp() for t in (far * -1 + 1 / 255, far + 254 / 255))
            want[0], want[-1] = torch.trapezoid(below, far), torch.trapezoid(above, far)
            kink = min(max(round(mean * 255), 0), 255)  # the density of `laplace` has one here, and the rule no power
            want[kink] = 1 - want[:kink].sum() - want[kink + 1 :].sum()
    torch.testing.assert_close(pmf(likelihood, out).exp(), want, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_prob_is_the_references(name: str) -> None:
    """Summed over pixels, images and lanes apart."""
    likelihood = LIKELIHOODS[name]
    out = outputs(likelihood, pixels=5, images=3, lanes=2)
    x = model_inputs(likelihood, levels_of(2, 3, 5))
    torch.testing.assert_close(likelihood.log_prob(x, *out), REFERENCE[name](x, *out).sum(-1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_probabilities_broadcast_images_against_latents(name: str) -> None:
    """Images (N, 1, P) against latents (1, G, P), shared scalars (1, 1, 1), and lanes of shared scalars (S, 1, 1)."""
    likelihood, v = LIKELIHOODS[name], levels_of(2, 4, 5)
    out = outputs(likelihood, pixels=5, images=4, lanes=2)
    x = model_inputs(likelihood, v)
    for f, data in ((likelihood.log_prob, x), (likelihood.log_pmf, v)):
        together = f(data, *out)
        if together is not None:
            for lane in range(2):
                own = [o[lane : lane + 1] for o in out]
                pairs = f(data[lane][:, None], *own)
                assert pairs.shape == (4, 4)
                torch.testing.assert_close(pairs.diagonal(), together[lane], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_product_is_log_prob_of_all_pairs(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    out = outputs(likelihood, pixels=7, images=4, lanes=2)
    product = likelihood.exponential_family(*out)
    assert (product is not None) == (name in PRODUCTS)
    if product is not None:
        x = model_inputs(likelihood, levels_of(6, 7))
        precision, log_norm = product.precision.expand(2, 4), -likelihood.log_prob(x.new_zeros(1, 7), *out)
        pairs = torch.einsum("np,sgp->sng", x, product.eta) - log_norm[:, None]
        pairs = pairs - precision[:, None] / 2 * x.square().sum(1)[:, None]
        want = likelihood.log_prob(x[:, None], *(o[:, None] for o in out))
        torch.testing.assert_close(pairs, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_objective_at_beta_one_is_a_hand_written_elbo(name: str) -> None:
    vae = build(TrialSpec(likelihood=name, network="mlp", hidden=(6,)), image_shape=(1, 3, 3)).double()
    vae.reset(0, torch.Generator().manual_seed(0))
    x, g = model_inputs(vae.likelihood, levels_of(1, 5, 9)), torch.Generator().manual_seed(1)
    eps = torch.randn(1, 3, 5, 2, generator=g, dtype=torch.float64)
    got = elbo(vae(x, eps), torch.ones(1), torch.zeros(1))
    mean, log_var = vae.encoder(x)
    q = Normal(mean, (log_var / 2).exp())
    kl = kl_divergence(q, Normal(torch.zeros_like(mean), 1.0)).sum(-1)
    recon = [REFERENCE[name](x, *vae.decode(q.loc + q.scale * eps[:, i])).sum(-1) for i in range(3)]
    torch.testing.assert_close(-got, (kl - torch.stack(recon).mean(0)).mean(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("extreme", [-1e4, -300.0, -89.0, -30.0, 30.0, 89.0, 300.0, 1e4])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_extreme_outputs_leave_finite_values_and_gradients(name: str, extreme: float) -> None:
    """In float32, one output at a time and all at once."""
    likelihood, v = LIKELIHOODS[name], torch.tensor([[[0.0, 1.0, 127.0, 254.0, 255.0]]])
    n = likelihood.outputs + likelihood.shared
    for turn in [*([i] for i in range(n)), range(n)]:
        out = [torch.zeros(1, 1, 5 if i < likelihood.outputs else 1) for i in range(n)]
        for i in turn:
            out[i] += extreme
        leaves = [o.requires_grad_() for o in out]
        x = model_inputs(likelihood, v)
        for value in (likelihood.log_prob(x, *leaves), likelihood.log_pmf(v, *leaves), likelihood.mean(*leaves)):
            if value is not None:
                gradients = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
                assert value.isfinite().all()
                assert all(g.isfinite().all() for g in gradients if g is not None)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_gradient_of_the_mean_in_float32_is_that_in_float64(name: str) -> None:
    """Up to |output| = 300; the mean itself too, near 0 as near 1."""
    sizes = torch.tensor([0.0, 1e-3, 0.04, 0.06, 1.0, 10.0, 40.0, 88.0, 89.0, 104.0, 300.0])
    likelihood, points = LIKELIHOODS[name], torch.cat([-sizes.flip(0), sizes])[None, None]
    found = []
    for dtype in (torch.float32, torch.float64):
        out = [(points if i == 0 else torch.zeros_like(points)).to(dtype).requires_grad_() for i in range(likelihood.outputs)]
        mean = likelihood.mean(*out, *(torch.zeros(1, 1, 1, dtype=dtype) for _ in range(likelihood.shared)))
        (gradient,) = torch.autograd.grad(mean.sum(), out[:1])
        found.append((mean.detach().double(), gradient.double()))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)  # 1/a^2 cancels where |output| is small


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradcheck(name: str) -> None:
    likelihood, v = LIKELIHOODS[name], torch.tensor([[[0.0, 7.0, 128.0, 255.0]]], dtype=torch.float64)
    x = model_inputs(likelihood, v)
    leaves = tuple(o.requires_grad_() for o in outputs(likelihood, 4))
    assert torch.autograd.gradcheck(lambda *out: likelihood.log_prob(x, *out), leaves)
    if name in PMFS:
        assert torch.autograd.gradcheck(lambda *out: likelihood.log_pmf(v, *out), leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("logit", "raw"), [(-30.0, -20.0), (0.3, -20.0), (0.3, 0.0), (30.0, -3.0), (-1.0, 9.0)])
@pytest.mark.parametrize("name", ["gaussian_shared", "laplace"])
def test_far_tails_and_thin_bins_against_many_digits(name: str, logit: float, raw: float, dtype: torch.dtype) -> None:
    got = pmf(LIKELIHOODS[name], (torch.full((1, 1, 1), logit, dtype=dtype), torch.full((1, 1, 1), raw, dtype=dtype)))
    with mpmath.workdps(60):
        start = mpmath.mpf(0.25) if name == "gaussian_shared" else mpmath.mpf(0.15)
        m = 255 / (1 + mpmath.exp(-logit))
        s = 255 * (mpmath.mpf(1) / 510 + min(start * mpmath.exp(raw), mpmath.exp(7)))
        for v in (0, 1, 60, 127, 200, 254, 255):
            a = -mpmath.inf if v == 0 else (v - mpmath.mpf(0.5) - m) / s
            b = mpmath.inf if v == 255 else (v + mpmath.mpf(0.5) - m) / s
            a, b = (-b, -a) if a + b > 0 else (a, b)
            low, high = (mpmath.erfc(-t / mpmath.sqrt(2)) / 2 if name == "gaussian_shared" else laplace_cdf(t) for t in (a, b))
            assert got[v].item() == pytest.approx(float(mpmath.log(high - low)), rel=1e-6, abs=1e-6)


def laplace_cdf(t: mpmath.mpf) -> mpmath.mpf:
    return mpmath.exp(t) / 2 if t < 0 else 1 - mpmath.exp(-t) / 2


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_mean_is_the_mean_of_samples(name: str) -> None:
    likelihood, n = LIKELIHOODS[name], 40_000
    out = outputs(likelihood, pixels=6, seed=3)
    samples = likelihood.sample(torch.Generator().manual_seed(0), *(o.expand(1, n, -1) if o.shape[-1] > 1 else o for o in out))[0]
    standard_error = samples.std(0) / math.sqrt(n)
    slack = 0.5 / MAX_LEVEL if "logistic" in name else 0.0  # the mean is that of a clipped logistic
    error = (likelihood.mean(*out)[0, 0] - samples.mean(0)).abs()
    assert (error <= 3 * standard_error + slack).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_lie_where_the_data_lie(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    samples = likelihood.sample(torch.Generator().manual_seed(0), *outputs(likelihood, pixels=500))
    match SCALES[name].of:
        case "{0,1}, dynamic":
            assert samples.unique().tolist() == [0, 1]
        case "0..255":
            torch.testing.assert_close(samples * MAX_LEVEL, (samples * MAX_LEVEL).round())
            assert samples.min() >= 0
            assert samples.max() <= 1
        case "(v+u)/256":
            assert 0 < samples.min() < samples.max() < 1


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_noise_reaches_its_floor_and_no_lower(name: str) -> None:
    likelihood = LIKELIHOODS[name]
    scale = likelihood.noise_scale(*(torch.full_like(o, -1e4) for o in outputs(likelihood, 3)))
    if likelihood.scale_floor is not None:
        torch.testing.assert_close(scale, torch.full_like(scale, likelihood.scale_floor))
    else:
        assert scale is None or name == "mse"
