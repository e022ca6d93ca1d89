"""A VAE for which everything is known in closed form: x = W z + b + noise, W with orthogonal columns, so p(z|x) is diagonal."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from harness.models.likelihoods import ExponentialFamily
from harness.models.vae import VAE


@dataclass(frozen=True)
class LinearNormal:
    """Normal(out, sigma) with nothing squashed."""

    sigma: float
    params: int = 1
    shared: int = 0
    noisy: bool = False
    kernel: None = None

    def log_prob(self, x: Tensor, *out: Tensor) -> Tensor:
        return Normal(out[0], self.sigma).log_prob(x).sum(-1)

    def exponential_family(self, *out: Tensor) -> ExponentialFamily:
        precision = torch.tensor(self.sigma**-2, dtype=out[0].dtype)
        return ExponentialFamily(out[0] * precision, precision)


class Posterior(nn.Module):
    """The exact posterior, its mean shifted by `shift` of its own standard deviations and its variance times `widen`."""

    def __init__(self, W: Tensor, b: Tensor, sigma: float, shift: float = 0.0, widen: float = 1.0) -> None:
        super().__init__()
        self.W, self.b, self.sigma, self.shift, self.widen = W, b, sigma, shift, widen
        self.variance = 1 / (1 + W.square().sum(0) / sigma**2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = (x - self.b) @ self.W * self.variance / self.sigma**2 + self.shift * self.variance.sqrt()
        return mean, (self.variance * self.widen).log().expand_as(mean)


class Loadings(nn.Module):
    def __init__(self, W: Tensor, b: Tensor) -> None:
        super().__init__()
        self.W, self.b = W, b

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        return (z @ self.W.T + self.b,)


def model(
    latents: int = 2, sigma: float = 0.7, shift: float = 0.0, widen: float = 1.0, images: int = 5, far: float = 0.0
) -> tuple[VAE, Tensor, Tensor]:
    """A VAE, images x (N, 6), and their log p(x) (N,), in float64. `far` moves the images so that their codes lie there."""
    g = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(6, latents, generator=g, dtype=torch.float64))
    W = q * torch.tensor([1.5, 0.4, 0.8], dtype=torch.float64)[:latents]
    b = torch.randn(6, generator=g, dtype=torch.float64)
    x = torch.randn(images, 6, generator=g, dtype=torch.float64) + far * W.sum(1)
    vae = VAE(Posterior(W, b, sigma, shift, widen), Loadings(W, b), LinearNormal(sigma))
    evidence = MultivariateNormal(b, W @ W.T + sigma**2 * torch.eye(6, dtype=torch.float64))
    return vae, x, evidence.log_prob(x)


def gap(vae: VAE, latents: int) -> float:
    """KL(q || p(z|x)) in nats, the same for every image: what the ELBO lacks."""
    shift, widen = vae.encoder.shift, vae.encoder.widen
    return latents * 0.5 * (widen + shift**2 - 1 - torch.tensor(widen, dtype=torch.float64).log().item())
