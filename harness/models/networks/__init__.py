"""Encoder and decoder pairs by name.

In come the sizes that a pair must fit (`Sizes`); out come an encoder and a decoder that hold their parameters for all lanes.
Likelihoods, optimizers and data sets must not enter here. To add a network, write a function of `Sizes` and a line in `NETWORKS`.
"""

from collections.abc import Callable, Mapping

from harness.models.networks.layers import MLP, Decoder, Encoder, LaneLinear
from harness.models.networks.mlp import Sizes, mlp, reference

__all__ = ["MLP", "NETWORKS", "Decoder", "Encoder", "LaneLinear", "Sizes", "mlp", "reference"]

NETWORKS: Mapping[str, Callable[[Sizes], tuple[Encoder, Decoder]]] = {"reference": reference, "mlp": mlp}
