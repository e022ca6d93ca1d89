"""x, eps -> the terms of a bound. Shapes: S lanes, L draws, B images, P pixels, Z latents; nothing here knows a device or a seed.

log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)), q(z|x) = N(mean, diag(exp(log_var))), p(z) = N(0, I)
(Kingma & Welling, 2014, https://arxiv.org/abs/1312.6114).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from harness.models.likelihoods import LIKELIHOODS, Gaussian, Lanewise, Likelihood
from harness.models.networks import NETWORKS, Decoder, Encoder, LaneLinear, Sizes
from harness.spec import TrialSpec


class Pass(NamedTuple):
    """One look at B images with L draws of z each.

    q's mean and log_var (S, B, Z), the draws eps ~ N(0, 1) and z (S, L, B, Z), and log p(x|z) in nats, (S, L, B).
    """

    mean: Tensor
    log_var: Tensor
    eps: Tensor
    z: Tensor
    log_px: Tensor


def kl_per_dimension(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each latent, in nats: (..., Z) to (..., Z)."""
    return -0.5 * (1 + log_var - mean.square() - log_var.exp())


class VAE(nn.Module):
    """S variational autoencoders of one shape, side by side.

    `shared` holds the likelihood's learned scalars, (S, 1, n); it starts at 0.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, likelihood: Likelihood, lanes: int = 1) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.shared = nn.Parameter(torch.zeros(lanes, 1, likelihood.shared)) if likelihood.shared else None

    def decode(self, z: Tensor) -> tuple[Tensor, ...]:
        """z (S, B, Z) to all that p(x|z) needs."""
        out = tuple(o.float() if o.dtype == torch.bfloat16 else o for o in self.decoder(z))
        return out if self.shared is None else (*out, *self.shared.split(1, dim=-1))

    def forward(self, x: Tensor, eps: Tensor) -> Pass:
        """x (S, B, P), eps ~ N(0, 1) of (S, L, B, Z)."""
        lanes, draws, images, latents = eps.shape
        mean, log_var = (q.float() if q.dtype == torch.bfloat16 else q for q in self.encoder(x))
        z = mean[:, None] + torch.exp(log_var / 2)[:, None] * eps
        target = x if draws == 1 else x.repeat(1, draws, 1)
        log_px = self.likelihood.log_prob(target, *self.decode(z.view(lanes, draws * images, latents)))
        return Pass(mean, log_var, eps, z, log_px.view(lanes, draws, images))

    def reset(self, lane: int, generator: torch.Generator) -> None:
        """Draw lane's initial weights."""
        for module in self.modules():
            if isinstance(module, LaneLinear):
                module.reset(lane, generator)


def build(spec: TrialSpec, pixels: int, lanes: int = 1) -> VAE:
    """The VAE that spec describes, for `lanes` trials; its weights are not drawn yet."""
    return side_by_side([spec] * lanes, pixels)


def side_by_side(specs: Sequence[TrialSpec], pixels: int) -> VAE:
    """The VAEs of specs that are `mixable`, one lane each; their weights are not drawn yet."""
    likelihoods = [likelihood_of(s) for s in specs]
    likelihood = likelihoods[0] if len(set(likelihoods)) == 1 else cast(Likelihood, Lanewise(tuple(likelihoods)))
    shape = specs[0]
    sizes = Sizes(pixels, shape.latent, likelihood.params, shape.hidden or (), tuple(s.activation for s in specs))
    return VAE(*NETWORKS[shape.network](sizes), likelihood, len(specs))


def likelihood_of(spec: TrialSpec) -> Likelihood:
    """The likelihood that spec names, with its own constants."""
    return LIKELIHOODS[spec.likelihood] if spec.sigma is None else Gaussian(sigma="fixed", value=spec.sigma)


def mixable(specs: Iterable[TrialSpec]) -> bool:
    """Whether one program can train them: they differ in lane fields, activation and likelihood only, on decoders of one width."""
    return len({(s.mixed, likelihood_of(s).params) for s in specs}) == 1


def parameters_of_one(vae: VAE) -> int:
    """Learned parameters of one trial."""
    return sum(p[0].numel() for p in vae.parameters())
