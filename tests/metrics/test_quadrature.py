"""Exact log p(x), held to closed forms, to a dense grid, and to the bounds below it."""

import math
from pathlib import Path

import linear_gaussian
import own_file
import pytest
import torch
from torch import Tensor, nn

from harness import metrics
from harness.metrics import bounds, memory, quadrature
from harness.models.vae import VAE, build
from harness.spec import TrialSpec


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"latents": 1},
        {"sigma": 0.1},
        {"sigma": 0.02},
        {"far": 9.0},
        {"far": 10.0, "latents": 1},
        {"shift": 2.0, "widen": 0.1},
        {"widen": 20.0},
    ],
    ids=str,
)
def test_the_evidence_of_a_linear_gaussian_model(fields: dict) -> None:
    """In nats: log p(x) is -1e5 where sigma is small, so a relative error says nothing. The tolerance in use is looser."""
    vae, x, log_px = linear_gaussian.model(**fields)
    found = quadrature.exact(vae, bounds.native(vae, x), tolerance=1e-8)
    torch.testing.assert_close(found.log_px, log_px, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.coarser, log_px, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fields", [{"sigma": 0.002}, {"latents": 1, "sigma": 0.002}, {"latents": 1, "sigma": 0.0015}], ids=str)
def test_a_peak_far_narrower_than_a_cell_is_not_missed(fields: dict) -> None:
    """Posteriors of width 1e-3 in cells of 0.5. How much of their tails is kept: the next test."""
    vae, x, log_px = linear_gaussian.model(**fields)
    torch.testing.assert_close(quadrature.exact(vae, bounds.native(vae, x), tolerance=1e-8).log_px, log_px, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("fields", "tolerance"),
    [
        ({"latents": 1, "sigma": 0.002, "images": 200}, 1e-3),
        ({"latents": 1, "sigma": 0.002, "images": 200}, 1e-9),
        ({"sigma": 0.005, "images": 40}, 1e-3),
    ],
    ids=str,
)
def test_a_narrow_posterior_is_integrated_wherever_the_cells_lie(fields: dict, tolerance: float) -> None:
    vae, x, log_px = linear_gaussian.model(**fields)
    found = quadrature.exact(vae, bounds.native(vae, x), tolerance)
    torch.testing.assert_close(found.log_px, log_px, rtol=0, atol=1e-3)


def test_at_the_tolerance_in_use_it_is_exact_to_a_thousandth_of_a_nat() -> None:
    vae, x, log_px = linear_gaussian.model(images=50)
    found = quadrature.exact(vae, bounds.native(vae, x))
    assert (found.log_px - log_px).abs().max() < 1e-3
    assert (found.log_px - found.coarser).abs().max() < 1e-3


@pytest.mark.parametrize("sigma", [1.0, 0.3, 0.1, 0.03, 0.01])
def test_a_quick_evaluation_takes_wide_cells_and_is_exact_to_its_tolerance(sigma: float) -> None:
    vae, x, log_px = linear_gaussian.model(sigma=sigma, images=50)
    quick, view = metrics.DEPTHS["quick"], bounds.native(vae, x)
    found, narrower = (quadrature.exact(vae, view, quick.tolerance, side) for side in (quick.side, quadrature.SIDE))
    assert (found.log_px - log_px).abs().max() < 2 * quick.tolerance
    assert found.cells < narrower.cells


def test_the_inference_gap_is_the_kl_to_the_true_posterior() -> None:
    vae, x, _ = linear_gaussian.model(shift=0.5, widen=1.5, images=400)
    view = bounds.native(vae, x)
    score = bounds.estimate_elbo(vae, view, 64)
    gap = quadrature.exact(vae, view, tolerance=1e-8).log_px.mean().item() - score.elbo
    assert gap == pytest.approx(linear_gaussian.gap(vae, 2), abs=4 * score.standard_error)


def test_products_and_pairs_agree() -> None:
    vae, x, _ = linear_gaussian.model()
    view = bounds.native(vae, x)
    one_by_one = bounds.View(view.x, view.target, view.log_prob)
    torch.testing.assert_close(quadrature.exact(vae, view).log_px, quadrature.exact(vae, one_by_one).log_px, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", ["bce", "bernoulli", "mse", "gaussian_shared", "continuous_bernoulli", "gaussian_per_pixel"])
def test_products_pairs_and_importance_agree_on_decoders_in_use(name: str) -> None:
    vae = build(TrialSpec(likelihood=name, latent=1), image_shape=(1, 3, 4)).double()
    vae.reset(0, torch.Generator().manual_seed(0))
    x = torch.rand(6, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    view = bounds.native(vae, x.round() if name == "bernoulli" else x)
    found = quadrature.exact(vae, view).log_px
    has_product = view.exponential_family(*vae.decode(torch.zeros(1, 1, 1, dtype=torch.float64))) is not None
    assert has_product == (name != "gaussian_per_pixel")
    direct = bounds.View(view.x, view.target, view.log_prob)
    torch.testing.assert_close(found, quadrature.exact(vae, direct).log_px, rtol=1e-10, atol=0)
    weighted = bounds.importance(vae, view, 5_000)
    error = (1 / weighted.effective - 1 / 5_000).sqrt()  # of log mean w: the weights' coefficient of variation over sqrt K
    assert ((found - weighted.bounds[5_000]).abs() < 5 * error + 1e-3).all()


class Spike(nn.Module):
    """1 around z = 1.237, 0 elsewhere: away from the spike nothing tells where it is."""

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        return ((-0.5 * ((z - 1.237) / 5e-4).square()).exp(),)


def test_a_spike_that_only_q_knows_of_is_found() -> None:
    class AtSpike(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean = torch.full((*x.shape[:-1], 1), 1.237, dtype=x.dtype)
            return mean, torch.full_like(mean, -16.0)

    vae = VAE(AtSpike(), Spike(), linear_gaussian.LinearNormal(0.1))
    x = torch.ones(1, 1, dtype=torch.float64)
    z = torch.arange(1.227, 1.247, 1e-6, dtype=torch.float64)[:, None]  # the rest is 50 nats below
    log_p = vae.likelihood.log_prob(x, *vae.decode(z)) + torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 0])
    dense = torch.logsumexp(log_p, 0, keepdim=True) + torch.tensor(1e-6, dtype=torch.float64).log()
    torch.testing.assert_close(quadrature.exact(vae, bounds.native(vae, x)).log_px, dense, rtol=0, atol=1e-3)


class Folded(nn.Module):
    """An even function of z: every image has two codes, z and -z."""

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        return (torch.stack([z[..., 0].square(), 3 * z[..., 0] * z[..., 1], z[..., 1].square()], -1),)


def test_modes_that_q_does_not_know_are_found() -> None:
    class OneSide(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean = torch.tensor([1.2, 0.7], dtype=x.dtype).expand(*x.shape[:-1], 2)
            return mean, torch.full_like(mean, -6.0)

    vae = VAE(OneSide(), Folded(), linear_gaussian.LinearNormal(0.1))
    z = torch.tensor([[1.2, 0.7], [-1.0, 0.9], [2.0, -0.4]], dtype=torch.float64)
    (x,) = Folded()(z)
    line = torch.arange(-6, 6, 0.01, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    log_p = vae.likelihood.log_prob(x[:, None], *vae.decode(grid[None])) - 0.5 * grid.square().sum(-1)
    dense = torch.logsumexp(log_p, 1) + torch.tensor(0.01**2 / (2 * torch.pi), dtype=torch.float64).log()
    found = quadrature.exact(vae, bounds.native(vae, x))
    torch.testing.assert_close(found.log_px, dense, rtol=0, atol=1e-3)
    # q covers one of the two modes of the first image: its bound lacks log 2.
    bound = bounds.importance(vae, bounds.native(vae, x[:1]), 5_000).bounds[5_000]
    assert (found.log_px[0] - bound).item() == pytest.approx(torch.tensor(2.0).log().item(), abs=0.1)


def test_three_latents_are_refused() -> None:
    vae, x, _ = linear_gaussian.model(latents=3)
    with pytest.raises(ValueError, match="one or two latents, got 3"):
        quadrature.exact(vae, bounds.native(vae, x))


@pytest.mark.parametrize(
    ("network", "likelihood", "image_shape"),
    [
        ("conv", "bce", (3, 32, 32)),
        ("conv", "logistic_mixture", (3, 12, 10)),
        ("conv", "gaussian_per_pixel", (1, 9, 6)),
        ("mlp", "logistic_mixture", (3, 5, 7)),
        ("mine.py:small", "bernoulli", (3, 5, 7)),
    ],
)
def test_any_network_and_size_is_integrated(
    network: str, likelihood: str, image_shape: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the sum over a dense line, within the budget in use, and whatever fits in memory."""
    own_file.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = {"channels": 3} if likelihood == "logistic_mixture" else {}
    vae = build(TrialSpec(network=network, likelihood=likelihood, likelihood_args=arguments, latent=1), image_shape)
    vae.reset(0, torch.Generator().manual_seed(0))
    x = (torch.rand(3, math.prod(image_shape), generator=torch.Generator().manual_seed(1)) * 255).round() / 255
    view = bounds.native(vae, x.round() if likelihood == "bernoulli" else x)
    z = torch.linspace(-7, 7, 1_401)[:, None]
    out = vae.decode(z[None])
    log_p = torch.stack([vae.likelihood.log_prob(image.expand(1, len(z), -1), *out)[0] for image in view.target]).double()
    dense = torch.logsumexp(log_p + torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 0]), 1) + math.log(0.01)
    found = quadrature.exact(vae, view)
    assert found.resolved
    torch.testing.assert_close(found.log_px, dense, rtol=2e-7, atol=2e-3)  # float32's, of thousands of nats
    monkeypatch.setattr(memory, "CPU_VALUES", 1)
    monkeypatch.setattr(quadrature, "ELEMENTS", 1)
    torch.testing.assert_close(quadrature.exact(vae, view).log_px, found.log_px, rtol=2e-7, atol=2e-3)


# -------------------------------------------------------------------------------- what it may take


class Rugged(nn.Module):
    """A decoder that changes at every scale, as after a learning rate that was too high."""

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        return (torch.stack([(40 * z[..., 0] * k).sin() + (55 * z[..., 1] * k).sin() for k in (1.0, 3.0, 9.0)], -1),)


class Sharp(nn.Module):
    """Codes far out, of a width that no cell has."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.cat([20 * x[..., :1].cos(), x[..., 1:2].sin()], -1)
        return mean, torch.full_like(mean, -50.0)


@pytest.mark.parametrize("images", [1, 3, 30])
def test_what_cannot_be_resolved_is_said_within_the_budget(images: int) -> None:
    """Of cells, not of seconds: on any machine the same."""
    vae = VAE(Sharp(), Rugged(), linear_gaussian.LinearNormal(0.05))
    x = 0.01 * torch.randn(images, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    budget = quadrature.Budget(cells=5_000, cells_per_image=10)
    found = quadrature.exact(vae, bounds.native(vae, x), budget=budget)
    assert not found.resolved
    assert 0 < found.cells <= 5_000 + 10 * images
    assert quadrature.exact(vae, bounds.native(vae, x), budget=budget).cells == found.cells


def test_a_model_in_use_is_far_from_the_budget() -> None:
    vae, x, _ = linear_gaussian.model(images=50)
    found = quadrature.exact(vae, bounds.native(vae, x))
    assert found.resolved
    assert found.cells < quadrature.BUDGET.cells / 2


def test_the_last_guard_is_the_clock() -> None:
    vae, x, _ = linear_gaussian.model()
    assert not quadrature.exact(vae, bounds.native(vae, x), budget=quadrature.Budget(seconds=0.0)).resolved
