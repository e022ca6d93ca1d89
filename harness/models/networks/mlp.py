"""Fully connected encoders and decoders: of any widths, and those of the reference model."""

from collections.abc import Sequence
from typing import NamedTuple

from harness.models.networks.layers import MLP, Decoder, Encoder


class Sizes(NamedTuple):
    """What a network must fit: pixels per image, latents, outputs per pixel, hidden widths, the activation's name in every lane."""

    pixels: int
    latent: int
    params: int
    hidden: tuple[int, ...]
    activations: tuple[str, ...]


def mlp(sizes: Sizes) -> tuple[Encoder, Decoder]:
    """The regular pair: hidden widths in the encoder, mirrored in the decoder, an activation after every hidden layer."""
    return _pair(sizes, sizes.hidden, [sizes.activations] * len(sizes.hidden))


def reference(sizes: Sizes) -> tuple[Encoder, Decoder]:
    """The reference model, 784-256-64-32-2z and z-32-64-256-784: 439,956 parameters on MNIST at z = 2.

    Its quirk is kept: the decoder's first layer (z to 32) has no activation after it.
    """
    return _pair(sizes, (256, 64, 32), [("identity",) * len(sizes.activations), sizes.activations, sizes.activations])


def _pair(sizes: Sizes, hidden: tuple[int, ...], decoder_activations: Sequence[tuple[str, ...]]) -> tuple[Encoder, Decoder]:
    down = (sizes.pixels, *hidden, 2 * sizes.latent)
    up = (sizes.latent, *reversed(hidden), sizes.params * sizes.pixels)
    return Encoder(MLP(down, [sizes.activations] * len(hidden))), Decoder(MLP(up, decoder_activations), sizes.params)
