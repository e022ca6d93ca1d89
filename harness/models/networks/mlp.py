"""Fully connected encoders and decoders: of any hidden widths, and those of the reference model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.models.networks.layers import MLP, Decoder, Encoder


class Sizes(NamedTuple):
    """The sizes that a network must fit.

    Attributes:
        image_shape: Channels, height and width of an image, (C, H, W).
        latent: Latents.
        outputs: Decoder outputs per value.
        hidden: Widths of the encoder's hidden layers, from the image on.
        activations: The activation's name in every lane.
        arguments: The network's own arguments.
    """

    image_shape: tuple[int, int, int]
    latent: int
    outputs: int
    hidden: tuple[int, ...]
    activations: tuple[str, ...]
    arguments: Mapping[str, Any] = {}

    @property
    def pixels(self) -> int:
        """The values of an image, P = C H W."""
        return math.prod(self.image_shape)


def mlp(sizes: Sizes) -> tuple[Encoder, Decoder]:
    """Return an encoder with these hidden widths and a decoder that mirrors them, with an activation after every hidden layer.

    Its arguments are `norm` and `residual` of `MLP`.
    """
    return _pair(sizes, sizes.hidden, [sizes.activations] * len(sizes.hidden))


def reference(sizes: Sizes) -> tuple[Encoder, Decoder]:
    """Return the reference model, 784-256-64-32-2z and z-32-64-256-784: 439,956 parameters on MNIST at z = 2.

    As in the original, the decoder's first layer (z to 32) has no activation after it.
    """
    return _pair(sizes, (256, 64, 32), [("identity",) * len(sizes.activations), sizes.activations, sizes.activations])


def _pair(sizes: Sizes, hidden: tuple[int, ...], decoder_activations: Sequence[tuple[str, ...]]) -> tuple[Encoder, Decoder]:
    """Return an encoder of these hidden widths and a decoder of the reverse, with these activations after the decoder's layers."""
    down = (sizes.pixels, *hidden, 2 * sizes.latent)
    up = (sizes.latent, *reversed(hidden), sizes.outputs * sizes.pixels)
    encoder = MLP(down, [sizes.activations] * len(hidden), **sizes.arguments)
    return Encoder(encoder), Decoder(MLP(up, decoder_activations, **sizes.arguments), sizes.outputs)
