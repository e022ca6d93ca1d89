"""Models without gradients on the native kernels (harness/kernels), where those know what a model is made of.

Shapes: R rows, which are images or draws of them, P pixels, K outputs of the decoder per pixel.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ctypes import c_double
from functools import cache
from typing import cast

import torch
from torch import Tensor

from harness import catalog
from harness.kernels import library
from harness.kernels.chain import Affine
from harness.kernels.forward import Forward
from harness.kernels.matmul import Inference
from harness.models.activations import Activation
from harness.models.likelihoods import Likelihood
from harness.models.networks import MLP, Decoder, Encoder, LaneLinear
from harness.models.vae import VAE

Maps = list[tuple[LaneLinear, Activation]]
LogProb = Callable[..., Tensor]


def maps_of(vae: VAE) -> tuple[Maps, Maps] | None:
    """Return the affine maps and activations of a model's encoder and decoder, or None if it is made of anything else."""
    if not (isinstance(vae.encoder, Encoder) and isinstance(vae.decoder, Decoder)):
        return None
    bodies = [body.chain for body in (vae.encoder.body, vae.decoder.body) if isinstance(body, MLP)]
    if len(bodies) < 2 or bodies[0] is None or bodies[1] is None:
        return None
    return bodies[0], bodies[1]


@cache
def _known() -> dict[Activation, int]:
    """Return the activations that the kernels know, with their indices."""
    return {catalog.find("activation", name): i for i, name in enumerate(library.ACTIVATIONS)}


def kernel_of(activation: Activation) -> int | Activation:
    """Return the index of an activation among those that the kernels know, or the activation itself if they do not know it."""
    return _known().get(activation, activation)


@contextmanager
def inference(*models: VAE) -> Iterator[None]:
    """Give a context in which models encode and decode as fast as this machine can without gradients; with them as ever.

    A model of one lane that is made of affine maps and activations takes native kernels; of any other, single products may.
    """
    native = library.load()
    with ExitStack() as stack:
        for vae in models:
            maps, like = maps_of(vae), next(vae.parameters())
            if native is None or maps is None or len(like) > 1 or like.device.type != "cpu" or like.dtype != torch.float32:
                stack.enter_context(Inference())
                continue
            for module, chain in zip((vae.encoder, vae.decoder), maps, strict=True):
                forward = Forward(native, [_affine(*m) for m in chain], sparse=module is vae.encoder)
                stack.enter_context(_replaced(cast(MLP, module.body), forward))
        yield


@contextmanager
def _replaced(body: MLP, forward: Forward) -> Iterator[None]:
    """Give a context in which `body` computes by `forward` what needs no gradient and is of its type."""

    def compute(x: Tensor) -> Tensor:
        """Return the output of the last affine map: (1, R, w0) to (1, R, wn)."""
        natively = x.dtype == torch.float32 and x.dim() == 3 and len(x) == 1 and not torch.is_grad_enabled()
        return forward(x) if natively else MLP.forward(body, x)

    body.forward = compute  # type: ignore[method-assign]  # of this one alone, for as long as the context lasts
    try:
        yield
    finally:
        del body.forward


def _affine(layer: LaneLinear, activation: Activation) -> Affine:
    """Return a map as the kernels take it, without moments."""
    return Affine(layer.weight, layer.bias, kernel_of(activation), ())


def log_prob_of(likelihood: Likelihood) -> LogProb:
    """Return a likelihood's `log_prob`, computed by the native kernels where they know it and its arguments allow it.

    They must be float32 on a CPU, need no gradient, and lie as a decoder gives them; x has R rows or as many as the last but one
    dimension of the outputs.
    """
    kernel, native = likelihood.kernel, library.load()
    if kernel is None or native is None:
        return likelihood.log_prob
    settings = (c_double * 3)(*kernel.settings)

    def log_prob(x: Tensor, *out: Tensor) -> Tensor:
        """Return log p(x|z) in nats, summed over pixels: (..., P) to (...)."""
        if not _fits(likelihood.outputs, x, *out):
            return likelihood.log_prob(x, *out)
        first, shared = out[0], out[likelihood.outputs :]
        log_px, rows = first.new_empty(first.shape[:-1]), first.numel() // first.shape[-1]
        at = (x.data_ptr(), first.data_ptr(), shared[0].data_ptr() if shared else None)
        sizes = (rows, x.numel() // x.shape[-1], x.shape[-1])
        native.head(kernel.kind, settings, *at, None, None, log_px.data_ptr(), 0.0, *sizes)
        return log_px

    return log_prob


def _fits(outputs: int, x: Tensor, *out: Tensor) -> bool:
    """Return whether the kernels can score x under these outputs, of which `outputs` are the decoder's."""
    if torch.is_grad_enabled() or any(t.dtype != torch.float32 or t.device.type != "cpu" for t in (x, *out)):
        return False
    first, pixels = out[0], x.shape[-1]
    if first.dim() < max(2, x.dim()) or first.shape[-1] != pixels or first.stride(-1) != 1 or not x.is_contiguous():
        return False
    rows = first[..., 0].numel()
    joined = first.as_strided((rows, outputs, pixels), (outputs * pixels, pixels, 1))  # if they lie as a decoder gives them
    return x.numel() // pixels in (1, first.shape[-2]) and all(
        o.shape == first.shape and o.stride() == o_k.stride() and o.data_ptr() == o_k.data_ptr()
        for o, o_k in zip(out, (joined[:, k].view(first.shape) for k in range(outputs)), strict=False)
    )
