"""The contract of a network. Shapes: S lanes, B images, C channels, H rows, W columns, Z latents, K outputs per value."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.networks import stacked
from harness.models.vae import VAE, build, maker_of, makes_lanes
from harness.spec import TrialSpec
from harness.testing.rules import Contract, normal

IMAGES, LANES = 3, 2
OUTPUTS = ("bce", "gaussian_per_pixel")  # likelihoods by the number of decoder outputs, from 1 on


class _Alone(nn.Module):
    """The encoder or decoder of a VAE of one lane, as a module for one model."""

    def __init__(self, vae: VAE, part: int, image_shape: Sequence[int]) -> None:
        super().__init__()
        self.part, self.image_shape = (vae.encoder, vae.decoder)[part], image_shape

    def forward(self, x: Tensor) -> Any:
        """Return what the module gives without the dimension of lanes, images as (B, K, C, H, W)."""
        given = self.part(x.flatten(1)[None])
        if self.part.__class__.__name__.endswith("Encoder"):
            return tuple(t[0] for t in given)
        return torch.stack([t[0].unflatten(-1, self.image_shape) for t in given], 1)


def check_network(
    given: Any,
    /,
    *,
    image_shape: tuple[int, int, int] = (1, 8, 8),
    latent: int = 3,
    hidden: tuple[int, ...] | None = None,
    activation: Any = "elu",
    **arguments: Any,
) -> None:
    """Raise an error if a network breaks its contract.

    It is a function of `(image_shape, latent, outputs, **arguments)` that returns an encoder, from images (B, C, H, W) on [0, 1] to
    mean and log variance, (B, Z) each, and a decoder, from z (B, Z) to (B, K, C, H, W): ordinary modules for one model, whose
    results depend on their input and their parameters alone.

    Args:
        given: A name of the catalog, a reference, or the function.
        image_shape: Of the images to try it on.
        latent: Latents to try it with.
        hidden: The widths of a trial, for a function that takes them.
        activation: The activation of a trial, for a function that takes it.
        arguments: Those of the function.

    Raises:
        ContractError: The rule that it breaks first.
    """
    contract = Contract(given, "network")
    spec = TrialSpec(network=given, latent=latent, hidden=hidden, activation=activation, network_args=arguments)
    for outputs, name in enumerate(OUTPUTS, start=1):
        if makes_lanes(spec):

            def make(name: str = name) -> tuple[nn.Module, nn.Module]:
                vae = build(spec.derive(likelihood=name), image_shape)
                vae.reset(0, torch.Generator().manual_seed(int(torch.randint(2**31, ()))))
                return _Alone(vae, 0, image_shape), _Alone(vae, 1, image_shape)

            _check(contract, make, image_shape, latent, outputs, own=False)
            continue
        _check(contract, maker_of(spec, image_shape, outputs), image_shape, latent, outputs, own=True)


def _check(contract: Contract, make: Any, image_shape: tuple[int, int, int], latent: int, outputs: int, *, own: bool) -> None:
    """Check a network for this number of outputs per value."""
    torch_seed = torch.random.get_rng_state()
    try:
        torch.manual_seed(0)
        with contract.calling(f"(image_shape={image_shape}, latent={latent}, outputs={outputs})"):
            pair = make()
        if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(m, nn.Module) for m in pair)):
            came = f"a tuple of {len(pair)}" if isinstance(pair, tuple) else type(pair).__name__
            contract.broken("it must return a pair of torch modules", came, "return encoder, decoder")
        with contract.calling("it"):
            _check_pair(contract, *pair, image_shape, latent, outputs)
            if own:
                _check_apart(contract, *pair)
                _check_lanes(contract, make, image_shape)
    finally:
        torch.random.set_rng_state(torch_seed)


def _check_pair(
    contract: Contract, encoder: nn.Module, decoder: nn.Module, image_shape: tuple[int, int, int], latent: int, outputs: int
) -> None:
    """Check what one encoder and decoder give."""
    for name, module in {"the encoder": encoder, "the decoder": decoder}.items():
        types = {p.dtype for p in module.parameters()}
        if types != {torch.float32}:
            found = ", ".join(sorted(map(str, types))) or "none"
            contract.broken(f"{name} must have parameters in float32", found, "make its layers in __init__")
    x, z = normal(IMAGES, *image_shape).sigmoid(), normal(IMAGES, latent)
    with contract.calling(f"the encoder for images of {tuple(x.shape)}"):
        codes = encoder(x)
    if not (isinstance(codes, tuple) and len(codes) == 2):
        came = f"a tuple of {len(codes)}" if isinstance(codes, tuple) else type(codes).__name__
        contract.broken("the encoder must return (mean, log_var)", came, "return mean, log_var as a tuple")
    for name, code in zip(("mean", "log_var"), codes, strict=True):
        contract.shape(f"the encoder's {name}", code, (IMAGES, latent), "(B, Z)")
        contract.finite(f"the encoder's {name}", code, "scale its initial weights")
    with contract.calling(f"the decoder for z of {tuple(z.shape)}"):
        out = decoder(z)
    contract.shape("the decoder's output", out, (IMAGES, outputs, *image_shape), "(B, K, C, H, W)")
    contract.finite("the decoder's output", out, "scale its initial weights")
    for name, module, given in (("the encoder", encoder, x), ("the decoder", decoder, z)):
        contract.traceable(name, module, given)
        contract.same_twice(name, partial(_output, module, given), "no dropout: a VAE draws z, and nothing else")
        contract.equal(
            f"{name} must treat each image by itself",
            _first(module(given))[:2],
            _first(module(given[:2])),
            "no batch normalisation: use GroupNorm or LayerNorm",
        )
        loss = torch.stack([t.square().sum() for t in _all(module(given))]).sum()
        names, params = zip(*module.named_parameters(), strict=True)
        if not loss.requires_grad:
            contract.broken(f"{name} must be differentiable", "no gradient", "leave no_grad and detach out")
        gradients = torch.autograd.grad(loss, params, allow_unused=True)
        unused = [n for n, g in zip(names, gradients, strict=True) if g is None]
        if unused:
            contract.broken(f"{name} must use all of its parameters", f"unused: {', '.join(unused)}", "delete layers without use")


def _check_apart(contract: Contract, encoder: nn.Module, decoder: nn.Module) -> None:
    """Check that encoder and decoder share no parameter, which lanes would hold twice."""
    of_encoder = {id(p): name for name, p in encoder.named_parameters()}
    shared = [of_encoder[id(p)] for p in decoder.parameters() if id(p) in of_encoder]
    if shared:
        contract.broken("encoder and decoder must have parameters of their own", f"shared: {', '.join(shared)}", "untie them")


def _check_lanes(contract: Contract, make: Any, image_shape: tuple[int, int, int]) -> None:
    """Check that several models side by side give what each gives alone."""
    encoder, decoder = stacked(make, LANES, image_shape)
    for lane in range(LANES):
        for module in (encoder, decoder):
            module.reset(lane, torch.Generator().manual_seed(lane))
    x = normal(LANES, IMAGES, math.prod(image_shape)).sigmoid()
    fix = "use operations that torch.func.vmap knows"
    with contract.calling("several models side by side, by torch.func.vmap,"):
        mean, _ = encoder(x)
        out = decoder(mean)
    torch.manual_seed(1)
    alone, back = make()
    codes = alone(x[1].unflatten(-1, image_shape))[0]
    contract.equal("a model beside others must be what it is alone", mean[1], codes, fix, 1e-3)
    images = back(codes).flatten(2).unbind(1)
    contract.equal("a model beside others must be what it is alone", out[0][1], images[0], fix, 1e-3)


def _all(given: Any) -> tuple[Tensor, ...]:
    """Return the tensors that a module gives."""
    return given if isinstance(given, tuple) else (given,)


def _output(module: nn.Module, given: Tensor) -> Tensor:
    """Return the first tensor that a module gives for an input."""
    return _first(module(given))


def _first(given: Any) -> Tensor:
    """Return the first tensor that a module gives."""
    return _all(given)[0]
