"""The ELBO of the validation images after every epoch, by single operations or as one compiled program.

Shapes: N images, B a batch of them, P pixels, Z latents; VAEs here have one lane.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from harness import metrics
from harness.data import Split
from harness.kernels.matmul import Inference
from harness.kernels.torch_internals import compile_graph
from harness.metrics.bounds import BATCH, batches
from harness.models.vae import VAE, Pass, kl_per_dimension
from harness.spec import TrialSpec

# The compiled programs of this process, by cohort, shape of the batch and device.
_PROGRAMS: dict[tuple[Any, ...], Callable[..., Tensor]] = {}


class Validation:
    """The validation images as inputs of every trial's model, and their ELBO with one draw of z each.

    The draws are the same after every epoch and for all trials of equal Z: those of `harness.metrics.estimate_elbo`, whose
    results it equals, to rounding if `compiled`.

    Attributes:
        split: the validation images.
        compiled: True if whole batches are scored by a compiled program.
        fuse: True if that program goes through torch.compile; else it is left as it was traced.
        batch_size: the number of images that are scored at a time.
        programs: the compiled programs, by cohort, shape of the batch and device: by default those of this process.
        compile_s: the seconds that compiling took.
        inputs: the images as model inputs, (N, P), by likelihood and binarisation: one tensor for all trials that read them alike.
    """

    def __init__(
        self,
        split: Split,
        compiled: bool,
        *,
        fuse: bool = True,
        batch_size: int = BATCH,
        programs: dict[tuple[Any, ...], Callable[..., Tensor]] = _PROGRAMS,
    ) -> None:
        self.split, self.compiled, self.fuse = split, compiled, fuse
        self.batch_size, self.programs = batch_size, programs
        self.compile_s = 0.0
        self.inputs: dict[tuple[Any, ...], Tensor] = {}

    def score(self, spec: TrialSpec, vae: VAE) -> dict[str, float]:
        """Return ELBO, log p(x|z) and KL of a trial's model, in nats per image, by metric key."""
        x, params = self._inputs(spec, vae), list(vae.parameters())
        eps = _draws(len(x), spec.latent, self.batch_size).to(x)
        sums = torch.zeros(2, dtype=torch.float64, device=x.device)
        with torch.no_grad(), Inference():
            for rows in batches(len(x), self.batch_size):
                batch = (x[None, rows], eps[None, None, rows])
                program = self.compiled and rows.stop - rows.start == min(self.batch_size, len(x))
                sums += self._program(spec, vae, *batch)(*params, *batch) if program else _sums(vae(*batch))
        recon, kl = (sums / len(x)).tolist()
        return {"elbo/validation": recon - kl, "recon/validation": recon, "kl/validation": kl}

    def _inputs(self, spec: TrialSpec, vae: VAE) -> Tensor:
        """Return the images as inputs of this trial's model, (N, P)."""
        key = (vae.likelihood, spec.binarisation)
        if key not in self.inputs:
            self.inputs[key] = metrics.model_inputs(spec, vae, self.split)
        return self.inputs[key]

    def _program(self, spec: TrialSpec, vae: VAE, x: Tensor, eps: Tensor) -> Callable[..., Tensor]:
        """Return the program that computes `_sums` from parameters, x (1, B, P) and eps (1, 1, B, Z); compile it if it is new."""
        key = (spec.cohort.derive(epochs=1, evaluation="quick"), x.shape, x.device)
        if key not in self.programs:
            started = time.perf_counter()
            tensors = [*vae.parameters(), x, eps]
            graph = make_fx(partial(_of_parameters, vae))(*tensors)
            self.programs[key] = compile_graph(graph, tensors) if self.fuse else graph
            self.compile_s += time.perf_counter() - started
        return self.programs[key]


def _of_parameters(vae: VAE, *tensors: Tensor) -> Tensor:
    """Return `_sums` of a model's pass from its parameters, x (1, B, P) and eps (1, 1, B, Z), which are passed in this order."""
    *params, x, eps = tensors
    names = [name for name, _ in vae.named_parameters()]
    return _sums(functional_call(vae, dict(zip(names, params, strict=True)), (x, eps)))


def _sums(p: Pass) -> Tensor:
    """Return log p(x|z) and KL, each summed over a batch in float64, (2,)."""
    return torch.stack([t.sum(dtype=torch.float64) for t in (p.log_px, kl_per_dimension(p.mean, p.log_var))])


def _draws(n: int, latents: int, batch_size: int) -> Tensor:
    """Return the noise of z for n images, (N, Z), drawn batch by batch from one generator with seed 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.cat([torch.randn(b.stop - b.start, latents, generator=generator) for b in batches(n, batch_size)])
