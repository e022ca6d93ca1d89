"""Lanes of a network that is ordinary modules for one model: the user's own and the convolutional ones.

Shapes: S lanes, B images, C channels, H rows, W columns, P = C H W values, K outputs per value, Z latents.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

Pair = tuple[nn.Module, nn.Module]
Make = Callable[[], Pair]  # a network's function with all its arguments: a new encoder and decoder, with random weights


def maker(
    function: Callable[..., Pair],
    image_shape: tuple[int, int, int],
    latent: int,
    outputs: int,
    arguments: Mapping[str, Any],
    **offered: Any,
) -> Make:
    """Return the function that makes one model of a network.

    Args:
        function: Of a network, `(image_shape, latent, outputs, **arguments)`.
        image_shape: Channels, height and width of an image.
        latent: Latents.
        outputs: Decoder outputs per value.
        arguments: Those that the trial gives.
        offered: Further ones, which are given if the function takes an argument of the name: `activation`,
            `gain`, `hidden`.
    """
    taken = inspect.signature(function).parameters
    more = {name: value for name, value in offered.items() if name in taken and value is not None}
    return partial(function, image_shape, latent, outputs, **(more | dict(arguments)))


class _Stacked(nn.Module):
    """S models of one module of a pair, whose parameters are stacked along a first dimension.

    One model is called as it is, several by `torch.func.vmap`.

    Attributes:
        make: Makes a pair.
        part: 0 for the pair's encoder, 1 for its decoder.
        stack: The parameters, (S, ...) each, in the module's order.
    """

    def __init__(self, make: Make, part: int, lanes: int) -> None:
        super().__init__()
        self.make, self.part = make, part
        module = make()[part]
        self._template = [module]  # in a list, so that its own parameters are none of this module's
        self._names = [name for name, _ in module.named_parameters()]
        self.stack = nn.ParameterList(torch.empty(lanes, *p.shape) for p in module.parameters())

    def _apply(self, fn: Any, recurse: bool = True) -> "_Stacked":
        """Move or cast all tensors, those of the module that is called too."""
        self._template[0]._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self

    @torch.no_grad()
    def reset(self, lane: int, generator: torch.Generator) -> None:
        """Draw one lane's weights as its modules do, from the generator's seed, on the CPU whatever the device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            module = self.make()[self.part]
        for own, drawn in zip(self.stack, module.parameters(), strict=True):
            own[lane] = drawn

    def run(self, x: Tensor) -> Any:
        """Return what the module gives for x (S, B, ...), each of its tensors (S, B, ...)."""
        params = dict(zip(self._names, self.stack, strict=True))
        module = self._template[0]
        if len(x) > 1:
            return vmap(lambda own, inputs: functional_call(module, own, (inputs,)), randomness="error")(params, x)
        given = functional_call(module, {name: p[0] for name, p in params.items()}, (x[0],))
        return tuple(t[None] for t in given) if isinstance(given, tuple) else given[None]


class StackedEncoder(_Stacked):
    """S encoders of a network of ordinary modules, each from images (B, C, H, W) to mean and log variance, (B, Z) each.

    Attributes:
        image_shape: Channels, height and width of an image.
    """

    def __init__(self, make: Make, lanes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__(make, 0, lanes)
        self.image_shape = image_shape

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log variance of q(z|x), (S, B, Z) each, for x (S, B, P)."""
        mean, log_var = self.run(x.unflatten(-1, self.image_shape))
        return mean, log_var


class StackedDecoder(_Stacked):
    """S decoders of a network of ordinary modules, each from z (B, Z) to K outputs per value, (B, K, C, H, W)."""

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the K parameters of p(x|z), (S, B, P) each, for z (S, B, Z)."""
        out: Tensor = self.run(z)
        return out.flatten(3).unbind(2)


def stacked(make: Make, lanes: int, image_shape: tuple[int, int, int]) -> tuple[StackedEncoder, StackedDecoder]:
    """Return encoder and decoder of a network of ordinary modules for so many lanes; their weights are not drawn yet."""
    return StackedEncoder(make, lanes, image_shape), StackedDecoder(make, 1, lanes)
