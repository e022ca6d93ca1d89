"""The ELBO of the validation images after every epoch, by operations or as one program beside the compiled step.

Shapes: N images, B a batch of them, P pixels, Z latents; VAEs here have one lane.
"""

import time
from collections.abc import Callable
from functools import partial

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

_PROGRAMS: dict[tuple, Callable[..., Tensor]] = {}  # of this process; equal shapes share one


class Validation:
    """The images as every trial's likelihood sees them, and their ELBO with one draw of z each.

    The draws are the same after every epoch and for all trials of equal Z: those of `harness.metrics.elbo`, which it equals, to
    rounding where `compiled`.

    Attributes:
        compile_s: seconds that compiling took.
    """

    def __init__(self, split: Split, compiled: bool) -> None:
        self.split, self.compiled = split, compiled
        self.compile_s = 0.0
        self.shown: dict[tuple, Tensor] = {}  # one for all likelihoods that see the images alike

    def score(self, spec: TrialSpec, vae: VAE) -> dict[str, float]:
        """ELBO, log p(x|z) and KL in nats per image, as a row's entries."""
        x, params = self._shown(spec, vae), list(vae.parameters())
        eps = _draws(len(x), spec.latent).to(x)
        sums = torch.zeros(2, dtype=torch.float64, device=x.device)
        with torch.no_grad(), Inference():
            for where in batches(len(x)):
                batch = (x[None, where], eps[None, None, where])
                program = self.compiled and where.stop - where.start == min(BATCH, len(x))
                sums += self._program(spec, vae, *batch)(*params, *batch) if program else _sums(vae(*batch))
        recon, kl = (sums / len(x)).tolist()
        return {"elbo/validation": recon - kl, "recon/validation": recon, "kl/validation": kl}

    def _shown(self, spec: TrialSpec, vae: VAE) -> Tensor:
        key = (vae.likelihood, spec.binarisation)
        if key not in self.shown:
            self.shown[key] = metrics.model_inputs(spec, vae, self.split)
        return self.shown[key]

    def _program(self, spec: TrialSpec, vae: VAE, x: Tensor, eps: Tensor) -> Callable[..., Tensor]:
        key = (spec.cohort.derive(epochs=1, evaluation="quick"), x.shape, x.device)
        if key not in _PROGRAMS:
            started = time.perf_counter()
            tensors = [*vae.parameters(), x, eps]
            _PROGRAMS[key] = compile_graph(make_fx(partial(_of_parameters, vae))(*tensors), tensors)
            self.compile_s += time.perf_counter() - started
        return _PROGRAMS[key]


def _of_parameters(vae: VAE, *tensors: Tensor) -> Tensor:
    """`_sums` as a function of parameters, x (1, B, P) and eps (1, 1, B, Z)."""
    *params, x, eps = tensors
    names = [name for name, _ in vae.named_parameters()]
    return _sums(functional_call(vae, dict(zip(names, params, strict=True)), (x, eps)))


def _sums(p: Pass) -> Tensor:
    """Over a batch, (2,): log p(x|z) and KL."""
    return torch.stack([t.sum(dtype=torch.float64) for t in (p.log_px, kl_per_dimension(p.mean, p.log_var))])


def _draws(n: int, latents: int) -> Tensor:
    """eps (N, Z), batch by batch from one source."""
    generator = torch.Generator().manual_seed(0)
    return torch.cat([torch.randn(b.stop - b.start, latents, generator=generator) for b in batches(n)])
