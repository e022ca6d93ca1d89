"""Bounds by draws from q, held to a model that is known in closed form."""

import math
from dataclasses import replace

import linear_gaussian
import pytest
import torch

from harness.metrics import bounds
from harness.models.vae import kl_per_dimension


def test_every_bound_is_exact_where_q_is() -> None:
    vae, x, log_px = linear_gaussian.model()
    view = bounds.native(vae, x)
    weighted = bounds.importance(vae, view, 1_000)
    for bound in weighted.bounds.values():
        torch.testing.assert_close(bound, log_px, rtol=1e-10, atol=0)
    torch.testing.assert_close(weighted.effective, torch.full((5,), 1_000.0, dtype=torch.float64))
    mean, log_var = vae.encoder(x)
    score = bounds.estimate_elbo(vae, view, 8)
    assert score.kl == pytest.approx(kl_per_dimension(mean, log_var).sum(-1).mean().item(), rel=1e-12)


def test_the_elbo_is_the_formula() -> None:
    vae, x, _ = linear_gaussian.model(shift=1.0)
    score = bounds.estimate_elbo(vae, bounds.native(vae, x), 6, seed=3)
    g = torch.Generator().manual_seed(3)
    mean, log_var = vae.encoder(x)
    z = [mean + (log_var / 2).exp() * torch.randn(1, 5, 2, generator=g, dtype=torch.float64)[0] for _ in range(6)]
    recon = torch.stack([vae.likelihood.log_prob(x, *vae.decode(draw)) for draw in z])
    kl = kl_per_dimension(mean, log_var).sum(-1).mean().item()
    assert score.recon == pytest.approx(recon.mean().item(), rel=1e-12)
    assert score.kl == pytest.approx(kl, rel=1e-12)
    assert score.elbo == pytest.approx(recon.mean().item() - kl, rel=1e-12)
    assert score.standard_error == pytest.approx((recon.var(0) / 6).sum().sqrt().item() / 5, rel=1e-12)


def test_the_elbo_lacks_the_kl_to_the_true_posterior() -> None:
    vae, x, log_px = linear_gaussian.model(shift=0.5, widen=1.5, images=400)
    score = bounds.estimate_elbo(vae, bounds.native(vae, x), 64)
    assert score.elbo == pytest.approx(log_px.mean().item() - linear_gaussian.gap(vae, 2), abs=4 * score.standard_error)


def test_the_ladder_climbs_to_the_evidence() -> None:
    vae, x, log_px = linear_gaussian.model(shift=0.7, widen=0.6, images=300)
    weighted = bounds.importance(vae, bounds.native(vae, x), 5_000)
    means = [weighted.bounds[k].mean().item() for k in bounds.LADDER]
    assert means == sorted(means)
    assert means[-1] == pytest.approx(log_px.mean().item(), abs=0.005)
    assert means[0] == pytest.approx(log_px.mean().item() - linear_gaussian.gap(vae, 2), abs=0.02)
    assert 100 < weighted.effective.median() < 5_000


def test_importance_is_the_formula() -> None:
    vae, x, _ = linear_gaussian.model(shift=1.0)
    got = bounds.importance(vae, bounds.native(vae, x[:1]), 100, seed=3, rows=100)  # an image at a time
    mean, log_var = vae.encoder(x[None, :1])
    eps = torch.randn(1, 100, 1, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)[0, :, 0]
    z = mean[0, 0] + (log_var[0, 0] / 2).exp() * eps
    prior = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0).log_prob(z).sum(-1)
    q = torch.distributions.Normal(mean[0, 0], (log_var[0, 0] / 2).exp()).log_prob(z).sum(-1)
    log_w = vae.likelihood.log_prob(x[:1], *vae.decode(z)) + prior - q
    assert got.bounds[100].item() == pytest.approx(log_w.exp().mean().log().item(), rel=1e-10)
    assert got.bounds[1].item() == pytest.approx(log_w.mean().item(), rel=1e-10)
    tens = log_w.view(10, 10).exp().mean(1).log().mean().item()
    assert got.bounds[10].item() == pytest.approx(tens, rel=1e-10)
    assert got.effective.item() == pytest.approx((log_w.exp().sum() ** 2 / (2 * log_w).exp().sum()).item(), rel=1e-10)


def test_groups_of_many_chunks_are_the_formula() -> None:
    vae, x, _ = linear_gaussian.model(shift=1.0)
    got = bounds.importance(vae, bounds.native(vae, x[:1]), 1_000, seed=3, rows=10, draws=10)  # an image at a time
    mean, log_var = vae.encoder(x[None, :1])
    g = torch.Generator().manual_seed(3)
    eps = torch.cat([torch.randn(1, 10, 1, 2, generator=g, dtype=torch.float64) for _ in range(100)], 1)[0, :, 0]
    q = torch.distributions.Normal(mean[0, 0], (log_var[0, 0] / 2).exp())
    z = q.mean + q.stddev * eps
    prior = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    log_w = vae.likelihood.log_prob(x[:1], *vae.decode(z)) + (prior.log_prob(z) - q.log_prob(z)).sum(-1)
    for k in (1, 10, 100, 1_000):
        by_hand = log_w.view(-1, k).exp().mean(1).log().mean().item()
        assert got.bounds[k].item() == pytest.approx(by_hand, rel=1e-10)
    assert got.effective.item() == pytest.approx((log_w.exp().sum() ** 2 / (2 * log_w).exp().sum()).item(), rel=1e-10)


def test_a_bound_does_not_depend_on_how_work_is_cut() -> None:
    vae, x, _ = linear_gaussian.model(shift=0.7, widen=0.6, images=300)
    view = bounds.native(vae, x)
    whole = bounds.importance(vae, view, 1_000)
    cut = bounds.importance(vae, view, 1_000, seed=1, rows=700, draws=10)
    assert list(cut.bounds) == list(whole.bounds)
    for k, bound in whole.bounds.items():
        apart = bound - cut.bounds[k]  # image by image, so only the draws differ
        assert abs(apart.mean()) < 4 * apart.std() / len(apart) ** 0.5


def test_the_ladder_stops_at_what_was_asked_for() -> None:
    vae, x, _ = linear_gaussian.model()
    assert list(bounds.importance(vae, bounds.native(vae, x), 100).bounds) == [1, 10, 100]
    assert math.isfinite(bounds.importance(vae, bounds.native(vae, x), 1).bounds[1].sum())


def test_views_that_are_scored_together_score_as_each_alone() -> None:
    vae, x, _ = linear_gaussian.model(shift=0.5)
    first = bounds.native(vae, x)
    second = replace(first, target=x + 0.1, log_prob=lambda *given: 2 * vae.likelihood.log_prob(*given))
    known = replace(first, codes=tuple(q[0] for q in vae.encoder(x[None])))
    views = [known, second]
    alone = [first, second]
    assert bounds.estimate_elbos(vae, views, [3] * len(views)) == [
        pytest.approx(bounds.estimate_elbo(vae, view, 3)) for view in alone
    ]
    fewer = bounds.estimate_elbos(vae, views, [3, 1])
    assert fewer == [pytest.approx(bounds.estimate_elbo(vae, v, n), nan_ok=True) for v, n in zip(alone, (3, 1), strict=True)]
    images = [len(x), len(x) // 2 + 1]  # of the second fewer, and its last batch only in part
    for found, view, n in zip(bounds.importances(vae, views, [100] * 2, images, rows=300), alone, images, strict=True):
        wanted = bounds.importance(vae, view.first(n), 100, rows=300)
        torch.testing.assert_close(found.bounds, wanted.bounds)
        torch.testing.assert_close(found.effective, wanted.effective)
