"""The VAE: from images x and noise eps to the terms of a bound.

Shapes: S lanes, L draws, B images, P = C H W values of an image, Z latents.

The bound is log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z)), q(z|x) = N(mean, diag(exp(log_var))), p(z) = N(0, I)
(Kingma & Welling, 2014, https://arxiv.org/abs/1312.6114).
"""

import inspect
import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from harness import catalog, references
from harness.errors import UserError
from harness.models.activations import gain
from harness.models.likelihoods import Lanewise, Likelihood, OwnLikelihood
from harness.models.networks import (
    Decoder,
    Encoder,
    LaneLinear,
    Make,
    Sizes,
    StackedDecoder,
    StackedEncoder,
    maker,
    stacked,
)
from harness.spec import Arguments, TrialSpec


class Pass(NamedTuple):
    """The results of one forward pass over B images with L draws of z each.

    Attributes:
        mean: Mean of q(z|x), (S, B, Z).
        log_var: Log variance of q(z|x), (S, B, Z).
        eps: Draws from N(0, 1), (S, L, B, Z).
        z: mean + exp(log_var / 2) eps, (S, L, B, Z).
        log_px: log p(x|z) in nats, summed over pixels, (S, L, B).
    """

    mean: Tensor
    log_var: Tensor
    eps: Tensor
    z: Tensor
    log_px: Tensor


def kl_per_dimension(mean: Tensor, log_var: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_var)) || N(0, 1)) of each latent in nats: from (..., Z) twice to (..., Z)."""
    return -0.5 * (1 + log_var - mean.square() - log_var.exp())


class VAE(nn.Module):
    """S variational autoencoders of one shape, one per lane, computed together.

    Attributes:
        encoder: Maps x (S, B, P) to the mean and the log variance of q(z|x), (S, B, Z) each.
        decoder: Maps z (S, B, Z) to `likelihood.outputs` tensors, (S, B, P) each.
        likelihood: p(x|z) as a function of those outputs.
        shared: The likelihood's n learned scalars, (S, 1, n), 0 at the start; None if it has none.
    """

    def __init__(
        self, encoder: Encoder | StackedEncoder, decoder: Decoder | StackedDecoder, likelihood: Likelihood, lanes: int = 1
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.shared = nn.Parameter(torch.zeros(lanes, 1, likelihood.shared)) if likelihood.shared else None

    def decode(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the parameters of p(x|z) for z (S, B, Z).

        They are the decoder's outputs, (S, B, P) each, then the shared scalars, (S, 1, 1) each. Outputs in bfloat16 become float32.
        """
        out = tuple(o.float() if o.dtype == torch.bfloat16 else o for o in self.decoder(z))
        return out if self.shared is None else (*out, *torch.split(self.shared, 1, dim=-1))

    def forward(self, x: Tensor, eps: Tensor) -> Pass:
        """Encode x (S, B, P), draw z with eps ~ N(0, 1) of shape (S, L, B, Z), and score x under the decoded p(x|z)."""
        lanes, draws, images, latents = eps.shape
        mean, log_var = (q.float() if q.dtype == torch.bfloat16 else q for q in self.encoder(x))
        z = mean[:, None] + torch.exp(log_var / 2)[:, None] * eps
        target = x if draws == 1 else x.repeat(1, draws, 1)
        log_px = self.likelihood.log_prob(target, *self.decode(z.view(lanes, draws * images, latents)))
        return Pass(mean, log_var, eps, z, log_px.view(lanes, draws, images))

    def reset(self, lane: int, generator: torch.Generator) -> None:
        """Draw the initial weights of one lane from the generator, in place; the shared scalars stay as they are."""
        for module in self.modules():
            if isinstance(module, LaneLinear | StackedEncoder | StackedDecoder):
                module.reset(lane, generator)


def build(spec: TrialSpec, image_shape: tuple[int, int, int], lanes: int = 1) -> VAE:
    """Return the VAE that spec describes for images (C, H, W), with so many lanes; its weights are not drawn yet."""
    return side_by_side([spec] * lanes, image_shape)


def side_by_side(specs: Sequence[TrialSpec], image_shape: tuple[int, int, int]) -> VAE:
    """Return one VAE with a lane for each of these specs, which must be `mixable`; its weights are not drawn yet.

    `image_shape` is channels, height and width of an image.
    """
    likelihoods = [likelihood_of(s) for s in specs]
    likelihood = likelihoods[0] if len(set(likelihoods)) == 1 else cast(Likelihood, Lanewise(tuple(likelihoods)))
    shape, network = specs[0], catalog.find("network", specs[0].network)
    if makes_lanes(shape):
        sizes = Sizes(
            image_shape,
            shape.latent,
            likelihood.outputs,
            shape.hidden or (),
            tuple(s.activation for s in specs),
            shape.network_args,
        )
        encoder, decoder = network(sizes)
        return VAE(encoder, decoder, likelihood, len(specs))
    make = maker_of(shape, image_shape, likelihood.outputs)
    own_encoder, own_decoder = stacked(make, len(specs), image_shape)
    return VAE(own_encoder, own_decoder, likelihood, len(specs))


def maker_of(spec: TrialSpec, image_shape: tuple[int, int, int], outputs: int) -> Make:
    """Return the function that makes one model of the trial's network, which is one of ordinary modules."""
    offered = {
        "activation": catalog.find("activation", spec.activation),
        "gain": gain(spec.activation),
        "hidden": spec.hidden,
    }
    return maker(catalog.find("network", spec.network), image_shape, spec.latent, outputs, spec.network_args, **offered)


def makes_lanes(spec: TrialSpec) -> bool:
    """Return whether the trial's network makes all lanes itself; otherwise it makes ordinary modules for one model, as a user's."""
    entry = catalog.entry("network", spec.network)
    return isinstance(entry, catalog.NetworkEntry) and entry.of_lanes


def likelihood_of(spec: TrialSpec) -> Likelihood:
    """Return the likelihood that spec names, with its arguments; one of the user's own with the members that it lacks.

    Raises:
        UserError: a user's own that cannot be imported, or does not take these arguments.
    """
    return _likelihood(spec.likelihood, cast(Arguments, spec.likelihood_args))


@cache
def _likelihood(name: str, arguments: Arguments) -> Likelihood:
    """Return the likelihood of this name with these arguments."""
    make = catalog.find("likelihood", name)
    if catalog.entry("likelihood", name) is not None:
        return cast(Likelihood, make(**arguments))
    try:
        return OwnLikelihood(make(**arguments) if callable(make) else make)
    except TypeError as fault:
        known = ", ".join(inspect.signature(make).parameters)
        raise UserError(f"{references.label(name)} does not take likelihood_args={arguments}: {fault}\nit takes: {known}") from None


def mixing_group(spec: TrialSpec) -> str:
    """Return the name of the group of a trial, of which one program can train any: see `mixable`."""
    likelihood = likelihood_of(spec)
    activation = "" if makes_lanes(spec) else spec.activation  # stacked modules have one activation in all lanes
    return f"{spec.mixed.id}-{likelihood.outputs}-{likelihood.noise == 'frozen'}-{activation}"


def mixable(specs: Iterable[TrialSpec]) -> bool:
    """Return whether one program can train trials of these specs.

    It can if they differ in lane fields, activation and likelihood only, their likelihoods take equally many decoder outputs, and
    all or none of them have frozen noise; with a network of ordinary modules they must have one activation too.
    """
    return len(set(map(mixing_group, specs))) == 1


def kept_floats(vae: VAE, image_shape: tuple[int, int, int], latent: int) -> int:
    """Return how many floats a step keeps for the gradients, per lane, image and draw: what autograd saves, without parameters.

    The model may be on torch's device `meta`, where tensors have shapes and no memory.
    """
    device, lanes = next(vae.parameters()).device, len(next(vae.parameters()))
    known = {StorageWeakRef(p.untyped_storage()).cdata for p in vae.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(t: Tensor) -> Tensor:
        """Note a tensor that autograd saves, by its memory, which several may share."""
        storage = StorageWeakRef(t.untyped_storage()).cdata
        if storage not in known:
            kept[storage] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        vae(torch.zeros(lanes, 1, math.prod(image_shape), device=device), torch.zeros(lanes, 1, 1, latent, device=device))
    return sum(t.untyped_storage().nbytes() for t in kept.values()) // 4 // lanes


def parameters_of_one(vae: VAE) -> int:
    """Return the number of learned parameters of one lane."""
    return sum(p[0].numel() for p in vae.parameters())
