import math

import linear_gaussian
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from harness.models.vae import Pass, build, kl_per_dimension
from harness.spec import TrialSpec

# eps of mean 0 and covariance I, as lanes and draws of five images: their average integrates quadratics exactly.
CORNERS = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 2)[None, :, None].expand(1, 4, 5, 2)


def bound(p: Pass) -> Tensor:
    """The ELBO of every image by the draws of a pass."""
    return p.log_px.mean(1) - kl_per_dimension(p.mean, p.log_var).sum(-1)


def test_the_elbo_is_exact_for_a_linear_gaussian_model() -> None:
    vae, x, log_px = linear_gaussian.model()
    torch.testing.assert_close(bound(vae(x[None], CORNERS))[0], log_px, atol=1e-12, rtol=0)


def test_the_elbo_is_a_bound_for_any_other_posterior() -> None:
    vae, x, log_px = linear_gaussian.model(widen=2.0)
    lacks = log_px - bound(vae(x[None], CORNERS))[0]
    torch.testing.assert_close(lacks, torch.full_like(lacks, linear_gaussian.gap(vae, 2)))


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
        vae = build(spec, image_shape=(1, 5, 6), lanes=3)
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
    vae = build(TrialSpec(latent=3), image_shape=(1, 5, 6), lanes=2)
    for lane in range(2):
        vae.reset(lane, torch.Generator().manual_seed(lane))
    x, eps = torch.rand(2, 5, 30), torch.randn(2, 4, 5, 3)
    p = vae(x, eps)
    assert (p.log_px.shape, p.z.shape, p.mean.shape) == ((2, 4, 5), (2, 4, 5, 3), (2, 5, 3))
    # Draws are scored each on its own image: one draw alone gives the same.
    torch.testing.assert_close(vae(x, eps[:, 2:3]).log_px, p.log_px[:, 2:3])
