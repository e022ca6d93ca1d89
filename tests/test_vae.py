import math

import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from harness.spec import TrialSpec
from harness.vae import VAE, Pass, build, kl_per_dimension

SIGMA = 0.7


class LinearGaussian:
    """Normal(out, 0.7) with nothing squashed: under it the exact evidence is known."""

    params, shared, noisy = 1, 0, False

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        return Normal(out[0], SIGMA).log_prob(x).sum(-1)


class Posterior(nn.Module):
    """The exact posterior of x = W z + b + noise; with orthogonal columns of W it is diagonal."""

    def __init__(self, W: Tensor, b: Tensor) -> None:
        super().__init__()
        self.W, self.b = W, b
        self.variance = 1 / (1 + W.square().sum(0) / SIGMA**2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = (x - self.b) @ self.W * self.variance / SIGMA**2
        return mean, self.variance.log().expand_as(mean)


class Loadings(nn.Module):
    def __init__(self, W: Tensor, b: Tensor) -> None:
        super().__init__()
        self.W, self.b = W, b

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        return (z @ self.W.T + self.b,)


def linear_gaussian() -> tuple[VAE, MultivariateNormal, Tensor, Tensor]:
    """A VAE whose bound is tight, the distribution of x, five images, and eps that integrate quadratics exactly."""
    g = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(6, 2, generator=g, dtype=torch.float64))
    W, b = q * torch.tensor([1.5, 0.4], dtype=torch.float64), torch.randn(6, generator=g, dtype=torch.float64)
    x = torch.randn(1, 5, 6, generator=g, dtype=torch.float64)
    vae = VAE(Posterior(W, b), Loadings(W, b), LinearGaussian())
    evidence = MultivariateNormal(b, W @ W.T + SIGMA**2 * torch.eye(6, dtype=torch.float64))
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 2)  # mean 0, covariance I
    return vae, evidence, x, corners


def bound(p: Pass) -> Tensor:
    """The ELBO of every image by the draws of a pass."""
    return p.log_px.mean(1) - kl_per_dimension(p.mean, p.log_var).sum(-1)


def test_the_elbo_is_exact_for_a_linear_gaussian_model() -> None:
    vae, evidence, x, corners = linear_gaussian()
    mean = torch.stack([bound(vae(x, eps.expand(1, 1, 5, 2))) for eps in corners]).mean(0)
    torch.testing.assert_close(mean, evidence.log_prob(x), atol=1e-12, rtol=0)


def test_the_elbo_is_a_bound_for_any_other_posterior() -> None:
    vae, evidence, x, corners = linear_gaussian()
    vae.encoder.variance = vae.encoder.variance * 2
    mean = torch.stack([bound(vae(x, eps.expand(1, 1, 5, 2))) for eps in corners]).mean(0)
    assert (mean < evidence.log_prob(x) - 0.1).all()


def test_kl_is_torchs() -> None:
    g = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(2, 4, 3, generator=g, dtype=torch.float64), torch.randn(2, 4, 3, generator=g, dtype=torch.float64)
    want = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(torch.zeros_like(mean), 1.0))
    torch.testing.assert_close(kl_per_dimension(mean, log_var), want)
    assert kl_per_dimension(torch.zeros(3), torch.zeros(3)).tolist() == [0, 0, 0]


def test_kl_is_the_mean_log_ratio_of_samples() -> None:
    n, g = 400_000, torch.Generator().manual_seed(0)
    mean, log_var = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([-1.0, 0.7], dtype=torch.float64)
    q = Independent(Normal(mean, (log_var / 2).exp()), 1)
    p = Independent(Normal(torch.zeros_like(mean), 1.0), 1)
    z = mean + (log_var / 2).exp() * torch.randn(n, 2, generator=g, dtype=torch.float64)
    ratio = q.log_prob(z) - p.log_prob(z)
    error = abs(ratio.mean() - kl_per_dimension(mean, log_var).sum()).item()
    assert error < 3 * ratio.std().item() / math.sqrt(n)


def test_lanes_are_independent() -> None:
    for likelihood in ("bce", "gaussian_shared", "discretized_logistic"):
        spec = TrialSpec(likelihood=likelihood, latent=3)
        vae = build(spec, pixels=30, lanes=3)
        for lane in range(3):
            vae.reset(lane, torch.Generator().manual_seed(lane))
        x, eps = torch.rand(3, 5, 30), torch.randn(3, 4, 5, 3)
        before = vae(x, eps)
        (gradient,) = torch.autograd.grad(bound(before)[1].sum(), vae.encoder.body.layers[0].weight)
        assert gradient[1].abs().sum() > 0
        assert gradient[[0, 2]].abs().sum() == 0
        with torch.no_grad():
            for p in vae.parameters():
                p[1] += 1
        after = vae(x, eps)
        for old, new in zip(before._replace(eps=before.z), after._replace(eps=after.z), strict=True):
            assert torch.equal(old[[0, 2]], new[[0, 2]])
            assert not torch.equal(old[1], new[1])


def test_a_pass_comes_per_image_and_draw() -> None:
    vae = build(TrialSpec(latent=3), pixels=30, lanes=2)
    for lane in range(2):
        vae.reset(lane, torch.Generator().manual_seed(lane))
    x, eps = torch.rand(2, 5, 30), torch.randn(2, 4, 5, 3)
    p = vae(x, eps)
    assert (p.log_px.shape, p.z.shape, p.mean.shape) == ((2, 4, 5), (2, 4, 5, 3), (2, 5, 3))
    # Draws are scored each on its own image: one draw alone gives the same.
    torch.testing.assert_close(vae(x, eps[:, 2:3]).log_px, p.log_px[:, 2:3])
