"""Objectives that training maximises: bounds on log p(x). Shapes: S lanes, L draws, B images, Z latents.

Every objective takes a `Pass` and `beta` and `free_bits`, (S,) each, and returns the bound of each lane in nats per image, averaged
over the batch, (S,). `iwae` and `dreg` have no separate KL term, so they do not use `beta` and `free_bits`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from harness.models.vae import Pass, kl_per_dimension

Objective = Callable[[Pass, Tensor, Tensor], Tensor]


def elbo(p: Pass, beta: Tensor, free_bits: Tensor) -> Tensor:
    """Return E_q[log p(x|z)] - beta sum_j max(KL_j, free_bits), (S,), with one KL_j in nats per latent.

    KL_j is in closed form and is averaged over the batch before the maximum is taken. beta = 1 and free_bits = 0 give the ELBO
    (Kingma & Welling, 2014, https://arxiv.org/abs/1312.6114); beta: Higgins et al., 2017
    (https://openreview.net/forum?id=Sy2fzU9gl); free bits: Kingma et al., 2016 (https://arxiv.org/abs/1606.04934).
    """
    kl = kl_per_dimension(p.mean, p.log_var).mean(1)
    return p.log_px.mean((1, 2)) - beta * torch.maximum(kl, free_bits[:, None]).sum(-1)


def log_weights(p: Pass) -> Tensor:
    """Return log w = log p(x|z) + log p(z) - log q(z|x) of every draw, in nats, (S, L, B)."""
    return p.log_px + 0.5 * (p.eps.square() - p.z.square()).sum(-1) + 0.5 * p.log_var.sum(-1)[:, None]


def iwae(p: Pass, beta: Tensor, free_bits: Tensor) -> Tensor:
    """Return the log of the mean importance weight of L draws, (S,) (Burda et al., 2016, https://arxiv.org/abs/1509.00519)."""
    return (torch.logsumexp(log_weights(p), 1) - math.log(p.log_px.shape[1])).mean(-1)


def dreg(p: Pass, beta: Tensor, free_bits: Tensor) -> Tensor:
    """Return the IWAE bound, (S,), with doubly reparameterised gradients (Tucker et al., 2019, https://arxiv.org/abs/1810.04152).

    With v = w / sum w, the decoder's gradient is sum v d log w, as in IWAE. The encoder's is sum v^2 (d log w / dz)(dz / dq), with
    q's parameters inside log w detached: the surrogate gives one factor v, a hook on the gradient of z the other.
    """
    mean, log_var = p.mean.detach()[:, None], p.log_var.detach()[:, None]
    log_q = -0.5 * ((p.z - mean).square() * torch.exp(-log_var) + log_var).sum(-1)
    log_w = p.log_px - 0.5 * p.z.square().sum(-1) - log_q
    share = torch.softmax(log_w.detach(), 1)
    p.z.register_hook(lambda gradient: gradient * share[..., None])
    surrogate = (share * log_w).sum(1).mean(-1)
    bound = (torch.logsumexp(log_w.detach(), 1) - math.log(p.log_px.shape[1])).mean(-1)
    return bound + surrogate - surrogate.detach()
