"""Native likelihoods equal float64 autograd of their own log_prob; images and draws of z are those that torch's operations give.

Shapes: R rows, P pixels, K outputs per pixel, Z latents, L draws.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.kernels.library import Library
from harness.models.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Gaussian,
    HeadKernel,
    Laplace,
    Observation,
)
from harness.models.objectives import elbo
from harness.models.vae import Pass, kl_per_dimension

IMAGES, PIXELS = 6, 83  # one vector of pixels is not full, for any width
LIKELIHOODS: dict[str, Any] = {
    "bce": Bernoulli(grey=True),
    "bernoulli": Bernoulli(grey=False),
    "static": Bernoulli(grey=False, binarisation="static"),
    "threshold": Bernoulli(grey=False, binarisation="threshold"),
    "mse": Gaussian("nothing"),
    "narrow": Gaussian("nothing", sigma=0.1),
    "gaussian_shared": Gaussian("shared"),
    "gaussian_per_pixel": Gaussian("pixel"),
    "continuous_bernoulli": ContinuousBernoulli(),
    "laplace": Laplace(),
    "discretized_logistic": DiscretizedLogistic(),
    "categorical": Categorical(),
}
SPREADS = [1e-3, 1.0, 8.0, 400.0]  # of the decoder's outputs: as at the start, as trained, saturated


def address(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def levels(images: int = IMAGES, pixels: int = PIXELS) -> Tensor:
    """Grey levels: each once, the others as those of MNIST, half of them 0, some 255."""
    g = torch.Generator().manual_seed(0)
    v = torch.randint(0, 300, (images, pixels), generator=g).clamp_max(255)
    v *= torch.rand(v.shape, generator=g) < 0.5
    v.flatten()[:256] = torch.arange(256)
    return v.to(torch.uint8)


def noise(images: int = IMAGES, pixels: int = PIXELS) -> Tensor:
    return torch.rand(images, pixels, generator=torch.Generator().manual_seed(1))


def head(native: Library, kernel: HeadKernel, x: Tensor, out: Tensor, shared: Tensor | None, scale: float) -> list[Tensor]:
    """log p(x|z), then the gradients of the outputs and of the shared scalars."""
    log_px, g = torch.full((len(out),), torch.nan), torch.full_like(out, torch.nan)
    g_shared = None if shared is None else torch.full_like(shared, torch.nan)
    settings = torch.tensor(kernel.settings, dtype=torch.float64)
    tensors = (address(t) for t in (settings, x, out, shared, g, g_shared, log_px))
    native.head(kernel.kind, *tensors, scale, len(out), len(x), x.shape[1])
    return [log_px, g] if g_shared is None else [log_px, g, g_shared]


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_head_is_the_likelihood_and_its_gradient(native: Library, name: str, spread: float) -> None:
    likelihood, draws, scale = LIKELIHOODS[name], 2, 0.25
    g = torch.Generator().manual_seed(2)
    x = likelihood.observe(levels().float(), noise() if likelihood.noise == "fresh" else 0.5)
    out = spread * torch.randn(draws * IMAGES, likelihood.outputs * PIXELS, generator=g)
    if spread > 8:  # outputs that fit the images so well that log p is close to 0
        out[:, :PIXELS] = ((x - 0.5) * spread).repeat(draws, 1)
    shared = torch.full((1,), -0.7) if likelihood.shared else None
    ours = head(native, likelihood.kernel, x, out, shared, scale)

    leaves = [t.double().requires_grad_() for t in (out, *([] if shared is None else [shared]))]
    outputs = (*leaves[0].split(PIXELS, 1), *(s.view(1, 1) for s in leaves[1:]))
    log_px = likelihood.log_prob(x.double().repeat(draws, 1), *outputs)
    grads = torch.autograd.grad(-scale * log_px.sum(), leaves)
    for mine, exact in zip(ours, (log_px.detach(), *grads), strict=True):
        error, size = ((t if t.ndim > 1 else t[:, None]).norm(dim=1) for t in (mine - exact, exact))
        assert (error <= 1e-5 * size + 1e-12).all(), (error / size).max()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_head_of_nan_is_nan(native: Library, name: str) -> None:
    likelihood = LIKELIHOODS[name]
    x = likelihood.observe(levels().float(), noise() if likelihood.noise == "fresh" else 0.5)
    for k in range(likelihood.outputs):
        out = torch.zeros(IMAGES, likelihood.outputs * PIXELS)
        out[1, k * PIXELS + 3] = torch.nan
        shared = torch.zeros(1) if likelihood.shared else None
        log_px, g, *_ = head(native, likelihood.kernel, x, out, shared, 1.0)
        assert log_px.isnan().tolist() == [r == 1 for r in range(IMAGES)]
        assert g[1, k * PIXELS + 3].isnan()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_images_are_those_that_the_likelihood_observes(native: Library, name: str) -> None:
    likelihood = LIKELIHOODS[name]
    v, u = torch.arange(4 * 256, dtype=torch.int64).view(4, 256).to(torch.uint8), noise(5, 256)
    if likelihood.noise == "frozen":
        v = (v > 100).to(torch.uint8) * 255
    batch = torch.tensor([3, 0, 0, 2, 1])
    seen = torch.full((5, 256), torch.nan)
    native.observe(likelihood.kernel.observe, *map(address, (v, batch, u, seen)), 5, 256)
    assert seen.equal(likelihood.observe(v[batch].float(), u if likelihood.noise == "fresh" else 0.5))


def test_noise_of_a_binarised_pixel_decides_at_its_own_share(native: Library) -> None:
    """u equal to v/255 gives 0: the comparison is strict, and the share is rounded as torch rounds it."""
    v, batch = torch.arange(256, dtype=torch.int64).view(1, 256).to(torch.uint8), torch.zeros(1, dtype=torch.int64)
    share = v.float() / 255
    for u, wanted in ((share, 0.0), (share.nextafter(torch.zeros(())), 1.0)):
        seen = torch.empty(1, 256)
        native.observe(Observation.BINARISED, *map(address, (v, batch, u, seen)), 1, 256)
        assert (seen[0, 1:] == wanted).all()
        assert seen[0, 0] == 0


@pytest.mark.parametrize("latents", [1, 2, 17, 32])
@pytest.mark.parametrize("draws", [1, 3])
def test_draws_and_their_gradient_are_those_of_the_elbo(native: Library, draws: int, latents: int) -> None:
    rows, beta, free_bits = 7, 1.7, 0.4
    q, eps, weight = (
        torch.randn(n, generator=torch.Generator().manual_seed(i))
        for i, n in enumerate([(rows, 2 * latents), (draws, rows, latents), (draws, rows, latents)])
    )
    z, kl = torch.empty(draws, rows, latents), torch.empty(latents)
    native.draw(*map(address, (q, eps, z, kl)), draws, rows, latents)
    exact = q.double().requires_grad_()
    mean, log_var = exact.split(latents, 1)
    drawn = mean + torch.exp(log_var / 2) * eps
    per_latent = kl_per_dimension(mean, log_var).mean(0)
    torch.testing.assert_close(z.double(), drawn.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(kl.double(), per_latent.detach(), rtol=1e-6, atol=1e-6)

    # The loss's gradient of z is `weight`: log p(x|z) stands here for a sum that has it.
    log_px = -(weight * drawn).sum(-1) * draws * rows
    p = Pass(mean[None], log_var[None], eps.double()[None], drawn[None], log_px[None])
    bound = elbo(p, torch.tensor([beta]).double(), torch.tensor([free_bits]).double())
    (wanted,) = torch.autograd.grad(-bound.sum(), exact)
    kl_weight = beta * (kl > free_bits).float()
    assert latents == 1 or 0 < kl_weight.count_nonzero() < latents or latents == 2
    gq = torch.full_like(q, torch.nan)
    native.draw_back(*map(address, (q, eps, weight, kl_weight, gq)), draws, rows, latents)
    torch.testing.assert_close(gq.double(), wanted, rtol=2e-6, atol=2e-6)
