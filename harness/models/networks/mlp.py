"""Fully connected encoders and decoders: of any hidden widths, and those of the reference model."""

from collections.abc import Sequence
from typing import NamedTuple

from harness.models.networks.layers import MLP, Decoder, Encoder


class Sizes(NamedTuple):
    """The sizes that a network must fit.

    Attributes:
        pixels: Pixels per image.
        latent: Latents.
        outputs: Decoder outputs per pixel.
        hidden: Widths of the encoder's hidden layers, from the image on.
        activations: The activation's name in every lane.
    """

    pixels: int
    latent: int
    outputs: int
    hidden: tuple[int, ...]
    activations: tuple[str, ...]


def mlp(sizes: Sizes) -> tuple[Encoder, Decoder]:
    """Return an encoder with these hidden widths and a decoder that mirrors them, with an activation after every hidden layer."""
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
    return Encoder(MLP(down, [sizes.activations] * len(hidden))), Decoder(MLP(up, decoder_activations), sizes.outputs)
