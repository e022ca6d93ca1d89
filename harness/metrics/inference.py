"""Models without gradients on the native kernels (harness/kernels), where those know what a model is made of.

Shapes: R rows, which are images or draws of them, P pixels, K outputs of the decoder per pixel.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ctypes import c_double
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from harness import catalog
from harness.kernels import library
from harness.kernels.chain import Affine
from harness.kernels.forward import Forward
from harness.kernels.matmul import Inference
from harness.models.activations import Activation
from harness.models.likelihoods import MOST_SETTINGS, NATURAL, Head, HeadKernel, Likelihood
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
def _known() -> list[Activation]:
    """Return the activations that the kernels know, in their order."""
    return [catalog.find("activation", name) for name in library.ACTIVATIONS]


def kernel_of(activation: Activation) -> int | Activation:
    """Return the index of an activation among those that the kernels know, or the activation itself if they do not know it."""
    return next((i for i, own in enumerate(_known()) if own is activation), activation)  # a user's may have no hash


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

    They must be float32 on a CPU, need no gradient, and lie as a decoder gives them; x is one image, or as many as the outputs'
    last but one dimension, for each of the others.
    """
    kernel, native = likelihood.kernel, library.load()
    if kernel is None or native is None:
        return likelihood.log_prob

    def head(settings: Any, *at: int | None, sizes: tuple[int, ...]) -> None:
        """Set log p(x|z), given addresses of x, outputs, shared scalars and what is to be set."""
        native.head(kernel.kind, settings, *at[:3], None, None, at[3], 0.0, *sizes)

    return _scored(likelihood, likelihood.log_prob, kernel, head)


def log_pmf_of(likelihood: Likelihood) -> Callable[..., Tensor | None]:
    """Return a likelihood's `log_pmf`, computed by the native kernels as `log_prob_of` says."""
    kernel, native = likelihood.kernel, library.load()
    if kernel is None or native is None or not kernel.of_levels:
        return likelihood.log_pmf

    def levels(settings: Any, *at: int | None, sizes: tuple[int, ...]) -> None:
        """Set log P(v|z), given addresses of v, outputs, shared scalars and what is to be set."""
        native.levels(kernel.kind, settings, *at, *sizes)

    return _scored(likelihood, cast(LogProb, likelihood.log_pmf), kernel, levels)


def _scored(likelihood: Likelihood, otherwise: LogProb, kernel: HeadKernel, score: Callable[..., None]) -> LogProb:
    """Return a function that scores what fits the kernels by `score`, and the rest as `otherwise` does."""
    settings = (c_double * MOST_SETTINGS)(*kernel.settings)

    def log_prob(x: Tensor, *out: Tensor) -> Tensor:
        """Return a log-probability in nats, summed over pixels: (..., P) to (...)."""
        if not _fits(likelihood.outputs, x, *out):
            return otherwise(x, *out)
        first, shared = out[0], out[likelihood.outputs :]
        log_px, rows = first.new_empty(first.shape[:-1]), first.numel() // first.shape[-1]
        at = (x.data_ptr(), first.data_ptr(), shared[0].data_ptr() if shared else None, log_px.data_ptr())
        score(settings, *at, sizes=(rows, x.numel() // x.shape[-1], x.shape[-1]))
        return log_px

    return log_prob


def mean_of(likelihood: Likelihood) -> Callable[..., Tensor]:
    """Return a likelihood's `mean`, computed by the native kernels where it is the gradient of log p(0|z), or a mixture's.

    Outputs must be float32 on a CPU and need no gradient, and those of a mixture lie as a decoder gives them.
    """
    kernel, native = likelihood.kernel, library.load()
    if kernel is None or native is None:
        return likelihood.mean
    settings = (c_double * MOST_SETTINGS)(*kernel.settings)

    def of_mixture(*out: Tensor) -> Tensor:
        """Return E[x|z], (..., P) on [0, 1]."""
        first = out[0]
        if not _fits(likelihood.outputs, first.new_empty(1, first.shape[-1]), *out):
            return likelihood.mean(*out)
        image, rows = first.new_empty(first.shape), first.numel() // first.shape[-1]
        native.mixture_mean(settings, first.data_ptr(), image.data_ptr(), rows, first.shape[-1])
        return image

    def of_natural(*out: Tensor) -> Tensor:
        """Return E[x|z], (..., P) on [0, 1]."""
        family = likelihood.exponential_family(*out)
        assert family is not None  # for it has a natural parameter
        eta = family.eta.contiguous()
        black = eta.new_zeros(1, eta.shape[-1])
        if not _fits(1, black, eta):
            return likelihood.mean(*out)
        image, log_px = torch.empty_like(eta), eta.new_empty(eta.shape[:-1])
        x_at, eta_at, to, score = (t.data_ptr() for t in (black, eta, image, log_px))
        sizes = (log_px.numel(), 1, eta.shape[-1])
        native.head(kernel.kind, settings, x_at, eta_at, None, to, None, score, 1.0, *sizes)
        return image

    if kernel.kind == Head.LOGISTIC_MIXTURE:
        return of_mixture
    return of_natural if kernel.kind in NATURAL else likelihood.mean


def _fits(outputs: int, x: Tensor, *out: Tensor) -> bool:
    """Return whether the kernels can score x under these outputs, of which `outputs` are the decoder's."""
    if torch.is_grad_enabled() or any(t.dtype != torch.float32 or t.device.type != "cpu" for t in (x, *out)):
        return False
    first, images, pixels = out[0], x.shape[-2] if x.dim() > 1 else 0, x.shape[-1]
    if x.numel() != images * pixels or not x.is_contiguous() or first.dim() < max(2, x.dim()) or first.shape[-1] != pixels:
        return False
    strides, step = [1], outputs * pixels  # from row to row, as a decoder gives its outputs
    for size in reversed(first.shape[:-1]):
        strides.insert(0, step)
        step *= size
    at, size = first.data_ptr(), first.element_size()
    return images in (1, first.shape[-2]) and all(
        o.shape == first.shape
        and o.data_ptr() == at + k * pixels * size
        and all(n == 1 or a == b for n, a, b in zip(o.shape, o.stride(), strides, strict=True))
        for k, o in enumerate(out[:outputs])
    )
