"""Tiers B and C: pmfs of grey levels, and what any model must beat."""

import pytest
import torch
from tables import SCALES

from harness.metrics.bits_per_dim import CommonHead, bits_per_dimension, own_levels
from harness.models.vae import VAE, build
from harness.spec import TrialSpec


def fresh(likelihood: str, pixels: int = 12) -> VAE:
    vae = build(TrialSpec(likelihood=likelihood, latent=3), (1, 1, pixels))
    vae.reset(0, torch.Generator().manual_seed(0))
    return vae


def levels(n: int, pixels: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (n, pixels), generator=torch.Generator().manual_seed(1)).float()


def counted(vae: VAE, v: torch.Tensor, **how: int) -> CommonHead:
    mean, log_var = vae.encoder(v[None] / 255)
    return CommonHead.count(vae, mean[0], log_var[0], v.to(torch.uint8), **how)


def test_the_table_is_counted_by_hand() -> None:
    vae, v = fresh("bce"), levels(40)
    head = counted(vae, v, seed=5, batch_size=25)
    counts = torch.full((64, 256), 0.1, dtype=torch.float64)
    g = torch.Generator().manual_seed(5)
    for part in (v[:25], v[25:]):
        mean, log_var = vae.encoder(part[None] / 255)
        image = vae.likelihood.mean(*vae.decode(mean + (log_var / 2).exp() * torch.randn(mean.shape, generator=g)))[0]
        for m, level in zip(image.flatten().tolist(), part.flatten().tolist(), strict=True):
            counts[int(64 * m), int(level)] += 1
    wanted = (counts / counts.sum(1, keepdim=True)).log().flatten().float()
    torch.testing.assert_close(head.log_table, wanted)


def test_the_common_head_is_a_pmf_for_every_mean_image() -> None:
    head = counted(fresh("gaussian_shared"), levels(40))
    image = torch.linspace(0, 1, 11).expand(256, 11)
    v = torch.arange(256.0)[:, None]
    each = torch.stack([head.log_prob(v, image[:, j : j + 1]) for j in range(11)]).double()
    torch.testing.assert_close(each.exp().sum(1), torch.ones(11, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(head.log_prob(v.expand(256, 11), image).double(), each.sum(0), rtol=1e-5, atol=1e-4)


def test_a_level_that_follows_the_image_costs_fewer_bits_than_one_that_does_not() -> None:
    v = levels(400)
    told = CommonHead(torch.full((64 * 256,), -9.0).index_fill(0, torch.arange(64) * 256 + torch.arange(64) * 4, -0.1))
    assert told.log_prob(v // 4 * 4, v / 256).mean() > told.log_prob(v // 4 * 4, v.flip(0) / 256).mean() + 1


@pytest.mark.parametrize("name", SCALES)
def test_tier_b_is_there_where_grey_levels_have_a_pmf(name: str) -> None:
    spec, vae, v = TrialSpec(likelihood=name, latent=3), fresh(name), levels(5)
    view = own_levels(spec, vae, v / 255, v)
    if name in ("bce", "bernoulli"):
        assert view is None
        assert vae.likelihood.log_pmf(v, *vae.decode(torch.zeros(1, 5, 3))) is None
    else:
        assert (view.log_prob(v[None], *vae.decode(torch.zeros(1, 5, 3))) < 0).all()


def test_bits_per_dimension() -> None:
    assert bits_per_dimension(-784 * torch.tensor(256.0).log().item(), 784) == pytest.approx(8)
