"""What training maximises, held to hand-written formulas and to the linear-Gaussian model. L draws, B images."""

import math

import linear_gaussian
import pytest
import torch
from tables import OBJECTIVES
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from harness import catalog
from harness.models.objectives import elbo, iwae
from harness.models.vae import VAE, Pass, build
from harness.spec import TrialSpec

ONE, NONE = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)


def small(draws: int, seed: int = 0) -> tuple[VAE, Tensor, Tensor]:
    """A tiny VAE in float64, four images and draws of eps."""
    vae = build(
        TrialSpec(network="mlp", hidden=(7,), activation="tanh", latent=3, likelihood="mse"), image_shape=(1, 3, 3)
    ).double()
    g = torch.Generator().manual_seed(seed)
    vae.reset(0, torch.Generator().manual_seed(0))
    x = torch.rand(1, 4, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return vae, x, torch.randn(1, draws, 4, 3, generator=g, dtype=torch.float64)


def weights(vae: VAE, p: Pass, x: Tensor) -> Tensor:
    """log w (L, B) from torch.distributions."""
    q, prior = Normal(p.mean[:, None], (p.log_var / 2).exp()[:, None]), Normal(torch.zeros_like(p.z), 1.0)
    log_px = torch.stack([vae.likelihood.log_prob(x, *vae.decode(p.z[:, k])) for k in range(p.z.shape[1])], 1)
    return (log_px + (prior.log_prob(p.z) - q.log_prob(p.z)).sum(-1))[0]


def test_the_table_is_the_one_that_a_spec_knows() -> None:
    assert tuple(OBJECTIVES) == catalog.names("objective")


def test_elbo_by_hand() -> None:
    vae, x, eps = small(5)
    p = vae(x, eps)
    kl = kl_divergence(Normal(p.mean, (p.log_var / 2).exp()), Normal(torch.zeros_like(p.mean), 1.0))
    recon = torch.stack([vae.likelihood.log_prob(x, *vae.decode(p.z[:, i])) for i in range(5)]).mean()
    torch.testing.assert_close(elbo(p, ONE, NONE)[0], recon - kl.sum(-1).mean())
    torch.testing.assert_close(elbo(p, 4 * ONE, NONE)[0], recon - 4 * kl.sum(-1).mean())
    per_latent = kl.mean((0, 1))
    free = per_latent.median()
    torch.testing.assert_close(elbo(p, ONE, free[None])[0], recon - per_latent.clamp_min(free).sum())


def test_without_free_bits_the_gradient_is_that_of_the_plain_elbo() -> None:
    vae, x, eps = small(3)
    parameters = list(vae.parameters())
    p = vae(x, eps)
    kl = kl_divergence(Normal(p.mean, (p.log_var / 2).exp()), Normal(torch.zeros_like(p.mean), 1.0))
    plain = p.log_px.mean() - 2 * kl.sum(-1).mean()
    wanted = torch.autograd.grad(plain, parameters, retain_graph=True)
    for got, want in zip(torch.autograd.grad(elbo(p, 2 * ONE, NONE).sum(), parameters), wanted, strict=True):
        torch.testing.assert_close(got, want)


def test_each_lane_has_a_beta_and_free_bits_of_its_own() -> None:
    vae, x, eps = small(3)
    p = vae(x, eps)
    lanes = Pass(*(t.expand(3, *t.shape[1:]) for t in p))
    beta, free = torch.tensor([1.0, 4.0, 0.5]).double(), torch.tensor([0.0, 0.1, 5.0]).double()
    wanted = torch.cat([elbo(p, beta[i : i + 1], free[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(elbo(lanes, beta, free), wanted)
    assert len(set(wanted.tolist())) == 3


def test_a_latent_below_its_free_bits_is_left_alone() -> None:
    mean = torch.tensor([[[0.1, 2.0]] * 4], dtype=torch.float64, requires_grad=True)
    log_var = torch.zeros_like(mean)
    p = Pass(mean, log_var, torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 4, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(elbo(p, ONE, 0.5 * ONE).sum(), mean)
    assert gradient[0, :, 0].tolist() == [0] * 4
    assert gradient[0, :, 1].tolist() == [-0.5] * 4  # -z / B


@pytest.mark.parametrize("name", ["iwae", "dreg"])
def test_importance_bounds_by_hand(name: str) -> None:
    vae, x, eps = small(6)
    p = vae(x, eps)
    by_hand = weights(vae, p, x).exp().mean(0).log().mean()
    torch.testing.assert_close(OBJECTIVES[name](p, ONE, NONE)[0], by_hand)


@pytest.mark.parametrize("draws", [1, 7, 50])
@pytest.mark.parametrize("name", ["iwae", "dreg"])
def test_importance_bounds_are_exact_where_q_is(name: str, draws: int) -> None:
    vae, x, log_px = linear_gaussian.model()
    eps = torch.randn(1, draws, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, log_var = vae.encoder(x[None])
    mean, log_var = mean.requires_grad_(), log_var.clone().requires_grad_()
    z = mean[:, None] + (log_var / 2).exp()[:, None] * eps
    p = Pass(mean, log_var, eps, z, vae.likelihood.log_prob(x[None, None], *vae.decode(z)))
    bound = OBJECTIVES[name](p, ONE, NONE)
    torch.testing.assert_close(bound[0], log_px.mean(), rtol=1e-10, atol=0)
    gradients = torch.autograd.grad(bound.sum(), [mean, log_var])
    if name == "dreg":  # every draw's own gradient is 0 there; IWAE's is 0 on average only
        assert max(g.abs().max().item() for g in gradients) < 1e-10


def test_one_draw_of_iwae_is_the_elbo_with_a_sampled_kl() -> None:
    vae, x, eps = small(1)
    p = vae(x, eps)
    torch.testing.assert_close(iwae(p, ONE, NONE)[0], weights(vae, p, x).mean())


def test_more_draws_tighten_the_bound() -> None:
    vae, x, eps = small(4_000)
    with torch.no_grad():
        log_w = weights(vae, vae(x, eps), x)

    def bound(k: int) -> float:
        return (torch.logsumexp(log_w.view(-1, k, 4), 1) - math.log(k)).mean().item()

    assert bound(1) < bound(10) < bound(100) < bound(4_000)


def gradients(name: str, draws: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of an objective, for the encoder's and for the decoder's parameters, flat."""
    vae, x, eps = small(draws, seed)
    value = OBJECTIVES[name](vae(x, eps), ONE, NONE).sum()
    encoder, decoder = list(vae.encoder.parameters()), list(vae.decoder.parameters())
    flat = [g.flatten() for g in torch.autograd.grad(value, encoder + decoder)]
    return torch.cat(flat[: len(encoder)]), torch.cat(flat[len(encoder) :])


def test_dreg_moves_the_decoder_as_iwae_does() -> None:
    torch.testing.assert_close(gradients("dreg", 6)[1], gradients("iwae", 6)[1], rtol=1e-10, atol=1e-12)


def test_dreg_moves_the_encoder_by_squared_weights() -> None:
    vae, x, eps = small(6)
    encoder = list(vae.encoder.parameters())
    p = vae(x, eps)
    share = torch.softmax(weights(vae, p, x), 0).detach()
    wanted = [torch.zeros_like(w) for w in encoder]
    for k in range(6):
        for b in range(4):
            z = p.z[0, k, b].detach().requires_grad_()
            q = Normal(p.mean[0, b].detach(), (p.log_var[0, b] / 2).exp().detach())
            log_w = vae.likelihood.log_prob(x[0, b], *vae.decode(z[None, None]))[0, 0]
            log_w = log_w + (Normal(torch.zeros_like(z), 1.0).log_prob(z) - q.log_prob(z)).sum()
            (pull,) = torch.autograd.grad(log_w, z)
            moved = torch.autograd.grad(p.z[0, k, b], encoder, pull, retain_graph=True)
            for total, part in zip(wanted, moved, strict=True):
                total += share[k, b] ** 2 * part / 4  # the mean over the batch
    torch.testing.assert_close(gradients("dreg", 6)[0], torch.cat([w.flatten() for w in wanted]), rtol=1e-9, atol=1e-12)


def test_dreg_and_iwae_agree_on_average_and_dreg_varies_less() -> None:
    runs = {name: torch.stack([gradients(name, 8, seed)[0] for seed in range(300)]) for name in ("iwae", "dreg")}
    error = ((runs["iwae"].var(0) + runs["dreg"].var(0)) / 300).sqrt()
    off = (runs["iwae"].mean(0) - runs["dreg"].mean(0)).abs()
    assert (off <= 4.5 * error + 1e-12).all()
    assert runs["dreg"].var(0).sum() < runs["iwae"].var(0).sum()
