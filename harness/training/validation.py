"""The ELBO of the validation images after every epoch, of all lanes together.

Shapes: S lanes, N images, B a batch of them, P pixels, Z latents.
"""

import time
from collections.abc import Callable, Sequence
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
from harness.metrics.memory import at_once
from harness.models.likelihoods import Likelihood
from harness.models.vae import VAE, Pass, kl_per_dimension, likelihood_of
from harness.spec import TrialSpec

# The compiled programs of this process, by cohort, shape of the batch and device.
_PROGRAMS: dict[tuple[Any, ...], Callable[..., Tensor]] = {}


class Validation:
    """The validation images as inputs of every lane's model, and their ELBO with one draw of z each.

    The draws are the same after every epoch and for all trials of equal Z: those of `harness.metrics.estimate_elbo`, whose
    results it equals to rounding.

    Attributes:
        split: the validation images.
        compiled: True if whole batches of a model of one lane are scored by a compiled program.
        fuse: True if that program goes through torch.compile's back end; else it is left as it was traced.
        batch_size: the number of images of a batch of draws, and the most that are scored at a time.
        programs: the compiled programs, by cohort, shape of the batch and device: by default those of this process.
        compile_s: the seconds that compiling took.
        inputs: the images as model inputs, (N, P), by likelihood: one tensor for all trials that read them alike.
        draws: the noise of z on the device, (N, Z), by Z.
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
        self.inputs: dict[Likelihood, Tensor] = {}
        self.draws: dict[int, Tensor] = {}

    def score(self, lanes: Sequence[TrialSpec], vae: VAE) -> list[dict[str, float]]:
        """Return ELBO, log p(x|z) and KL of every lane's model, in nats per image, by metric key.

        `lanes` are the trials in the lanes of `vae`.
        """
        inputs, params = [self._inputs(spec) for spec in lanes], list(vae.parameters())
        alike = all(x is inputs[0] for x in inputs)
        eps = self._eps(lanes[0].latent, inputs[0])
        sums = torch.zeros(2, len(lanes), dtype=torch.float64, device=eps.device)
        with torch.no_grad(), Inference():
            first = [x[None, :1].expand(len(lanes), -1, -1) for x in (eps, inputs[0])]
            size = min(self.batch_size, *map(at_once, (vae.decoder, vae.encoder), first))
            for rows in batches(len(eps), size):
                x = inputs[0][None, rows].expand(len(lanes), -1, -1) if alike else torch.stack([x[rows] for x in inputs])
                batch = (x, eps[None, None, rows].expand(len(lanes), -1, -1, -1))
                program = self.compiled and rows.stop - rows.start == min(size, len(eps))
                sums += self._program(lanes[0], vae, *batch)(*params, *batch) if program else _sums(vae(*batch))
        recon, kl = (sums / len(eps)).tolist()
        return [{"elbo/validation": r - k, "recon/validation": r, "kl/validation": k} for r, k in zip(recon, kl, strict=True)]

    def _inputs(self, spec: TrialSpec) -> Tensor:
        """Return the images as inputs of this trial's model, (N, P)."""
        key = likelihood_of(spec)
        if key not in self.inputs:
            self.inputs[key] = metrics.model_inputs(spec, self.split)
        return self.inputs[key]

    def _eps(self, latents: int, like: Tensor) -> Tensor:
        """Return the noise of z, (N, Z), on the device of `like`."""
        if latents not in self.draws:
            self.draws[latents] = _draws(len(self.split), latents, self.batch_size).to(like)
        return self.draws[latents]

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
    """Return `_sums` of a model's pass from its parameters, x (S, B, P) and eps (S, 1, B, Z), which are passed in this order."""
    *params, x, eps = tensors
    names = [name for name, _ in vae.named_parameters()]
    return _sums(functional_call(vae, dict(zip(names, params, strict=True)), (x, eps)))


def _sums(p: Pass) -> Tensor:
    """Return log p(x|z) and KL of every lane, each summed over a batch in float64, (2, S)."""
    terms = (p.log_px, kl_per_dimension(p.mean, p.log_var))
    return torch.stack([t.sum(tuple(range(1, t.dim())), dtype=torch.float64) for t in terms])


def _draws(n: int, latents: int, batch_size: int) -> Tensor:
    """Return the noise of z for n images, (N, Z), drawn batch by batch from one generator with seed 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.cat([torch.randn(b.stop - b.start, latents, generator=generator) for b in batches(n, batch_size)])
