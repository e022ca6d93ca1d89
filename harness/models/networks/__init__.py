"""Encoder and decoder pairs by name.

In come the sizes that a pair must fit (`Sizes`); out come an encoder and a decoder that hold their parameters for all lanes.
Likelihoods, optimizers and data sets must not enter here. To add a network, write a function of `Sizes` and a line in catalog.py; a
user's own, and one of convolutions, is a function that makes one model (stacked.py).
"""

from harness.models.networks.layers import MLP, Decoder, Encoder, LaneLinear
from harness.models.networks.mlp import Sizes, mlp, reference
from harness.models.networks.stacked import Make, StackedDecoder, StackedEncoder, maker, stacked

__all__ = [
    "MLP",
    "Decoder",
    "Encoder",
    "LaneLinear",
    "Make",
    "Sizes",
    "StackedDecoder",
    "StackedEncoder",
    "maker",
    "mlp",
    "reference",
    "stacked",
]
