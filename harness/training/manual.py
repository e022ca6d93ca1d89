"""The training step of a fully connected network on a CPU, with its backward pass written out: ready at once, without a compiler.

Affine maps, activations, draws of z, the KL and Adam's update are native kernels (harness/kernels). A likelihood that the kernels
know is scored and differentiated by them too if the objective is the ELBO; of any other, autograd differentiates what stands
between the decoder's outputs and the loss, and nothing else.

Shapes: L draws, B images, R = L B rows, P pixels, K outputs per pixel, Z latents, T steps of a chunk. There is one lane.
"""

from collections.abc import Callable, Sequence
from ctypes import byref, c_double
from typing import Any, cast

import torch
from torch import Tensor

from harness.errors import MachineError
from harness.kernels import library
from harness.kernels.chain import Affine, Chain
from harness.kernels.library import AdamStep, Library
from harness.metrics.inference import Maps, kernel_of, maps_of
from harness.models.likelihoods import MOST_SETTINGS, HeadKernel, Observation
from harness.models.networks import LaneLinear
from harness.models.objectives import elbo
from harness.models.vae import VAE, Pass
from harness.spec import CHUNK
from harness.training.extras import AVERAGE, clipped, follow
from harness.training.optimizers import OptimizerState, Rates
from harness.training.step import Chunk, LaneConstants, StepConfig


def applies(vae: VAE, precision: str, device: torch.device) -> bool:
    """Return whether steps of this model can be taken by the kernels, which this machine must have or be able to compile."""
    alone = len(next(vae.parameters())) == 1
    return device.type == "cpu" and precision == "fp32" and alone and maps_of(vae) is not None and library.load() is not None


class ManualStep:
    """The steps of one trial, bound to its tensors, which it changes in place.

    Attributes:
        config: the parts of the step that are not tensors.
        params: the parameters.
        state: the optimizer's state; its count of steps is the caller's.
        images: B.
        draws: L.
        encoder, decoder: the maps.
        batch: the images as the model sees them, (B, P).
        kernel: how the likelihood is computed natively; None if autograd differentiates it.
        adam: the memory of the numbers of Adam's step, if the kernels take it; None if they give gradients.
        seconds: the time that making it took beside its steps; as good as none.
    """

    seconds = 0.0

    def __init__(self, config: StepConfig, params: Sequence[Tensor], state: OptimizerState, levels: Tensor, chunk: Chunk) -> None:
        """Take memory for the steps.

        Args:
            config: the parts of the step that are not tensors.
            params: the parameters, (1, ...) each.
            state: the optimizer's state.
            levels: the grey levels of all images, uint8 (N, P).
            chunk: one of the chunks that are to come.

        Raises:
            MachineError: this machine has no kernels.
            ValueError: the kernels cannot take this step (`applies`).
        """
        maps, kernels = maps_of(config.vae), library.load()
        if kernels is None:
            raise MachineError(
                f"steps by native kernels: {library.fault()}\ninstall one (g++), or take them operation by operation"
            )
        if maps is None:
            raise ValueError("the kernels know affine maps and activations only")
        self.config, self.params, self.state, self.levels = config, list(params), state, levels.contiguous()
        self.library: Library = kernels
        _, _, self.draws, self.images, latents = chunk.eps.shape
        rows, pixels = self.draws * self.images, levels.shape[1]
        settings, likelihood = config.optimizer.kernel, config.vae.likelihood
        self.adam = (
            None
            if settings is None or config.extras.clips
            else AdamStep(beta1=settings.beta1, beta2=settings.beta2, eps=settings.eps, decoupled=int(settings.decoupled))
        )
        self.seen = likelihood.kernel
        natively = config.objective is elbo and self.seen is not None and self.seen.gradient
        self.kernel: HeadKernel | None = self.seen if natively else None
        self.settings = (c_double * MOST_SETTINGS)(*(self.kernel.settings if self.kernel else ()))
        self.batch = torch.empty(self.images, pixels)
        sparse = self.seen is None or self.seen.observe != Observation.DEQUANTISED  # noise on every pixel leaves no zeros
        self.encoder = Chain(kernels, [self._affine(*m) for m in maps[0]], self.batch, sparse=sparse, inwards=False)
        self.decoder = Chain(kernels, [self._affine(*m) for m in maps[1]], torch.empty(rows, latents), sparse=False, inwards=True)
        self.kl_weight = torch.empty(latents)
        self.shared_gradient = torch.zeros(max(1, likelihood.shared))
        self.log_px, self.kl = torch.empty(CHUNK, rows), torch.empty(CHUNK, latents)
        # What the kernels are given at every step; to ask for it each time would take a tenth of a millisecond.
        self._sizes = (self.draws, self.images, latents)
        self._image = (self.batch.data_ptr(), self.images, pixels)
        self._drawn = (self.encoder.y.data_ptr(), self.decoder.x.data_ptr())
        self._weighed = (cast(Tensor, self.decoder.gx).data_ptr(), self.kl_weight.data_ptr(), self.encoder.g.data_ptr())
        outputs = (self.decoder.y, config.vae.shared, self.decoder.g, self.shared_gradient)
        self._scored_at = tuple(None if t is None else t.data_ptr() for t in outputs)

    def _affine(self, layer: LaneLinear, activation: Callable[[Tensor], Tensor]) -> Affine:
        """Return a map as the kernels take it."""
        moments = [self._moments(p) for p in (layer.weight, layer.bias)] if self.adam else []
        return Affine(layer.weight, layer.bias, kernel_of(activation), tuple(t for pair in moments for t in pair))

    def _moments(self, parameter: Tensor) -> list[Tensor]:
        """Return the optimizer's slots of a parameter."""
        (at,) = (i for i, p in enumerate(self.params) if p is parameter)
        return [slot[at] for slot in self.state.of(self.config.optimizer)]

    @torch.no_grad()
    def run(self, lanes: LaneConstants, chunk: Chunk, steps: int, mark: Callable[[int], None]) -> None:
        """Take the first `steps` steps of a chunk and write its history. Call `mark` with 1 after each step."""
        chunk = chunk._replace(batch=chunk.batch.contiguous(), eps=chunk.eps.contiguous(), u=chunk.u.contiguous())
        numbers = [t[:, :1].flatten(1).tolist() for t in (chunk.beta, chunk.learning_rate)]
        factors, decay, free_bits = chunk.factors[:, :, 0].tolist(), float(lanes.weight_decay), float(lanes.free_bits)
        counted = OptimizerState(self.state.slots, self.state.step.clone())
        rows = [_rows(t) for t in (chunk.batch, chunk.u, chunk.eps, self.log_px, self.kl)]
        for t, (batch, u, *at) in zip(range(steps), zip(*rows, strict=False), strict=False):
            (beta,), (learning_rate,) = numbers[0][t], numbers[1][t]
            if self.adam is not None:
                self.adam.rate, self.adam.spread = factors[t][:2]
                self.adam.learning_rate, self.adam.weight_decay = learning_rate, decay
            if self.seen is not None:
                images, *sizes = self._image
                self.library.observe(self.seen.observe, self.levels.data_ptr(), batch, u, images, *sizes)
            else:
                v = self.levels.index_select(0, chunk.batch[t, 0]).float()[None]
                self.batch.copy_(self.config.vae.likelihood.observe(v, chunk.u[t])[0])
            self.encoder.forward()
            if self.config.objective is elbo:
                self._elbo(t, at, beta, free_bits)
            else:
                chunk.history[t] = self._any_objective(chunk.eps[t], lanes, chunk.beta[t], t)
            self.encoder.backward(self.adam)
            self._update(lanes, chunk, t, counted)
            mark(1)
        if self.config.objective is elbo:
            recon, kl = self.log_px[:steps].mean(1), self.kl[:steps]
            bound = recon - chunk.beta[:steps, 0] * kl.clamp_min(free_bits).sum(1)
            chunk.history[:steps, :, 0] = torch.stack((recon, kl.sum(1), bound), 1)

    def _elbo(self, t: int, at: Sequence[int], beta: float, free_bits: float) -> None:
        """Go from the encoder's outputs to their gradient, for the ELBO, with eps and rows of log_px and kl `at` addresses."""
        (eps, log_px_at, kl), (q, z) = at, self._drawn
        self.library.draw(q, eps, z, kl, *self._sizes)
        self.decoder.forward()
        scale = 1 / len(self.decoder.x)
        if self.kernel is None:
            log_px, leaves = self._scored()
            self.log_px[t] = log_px.detach().flatten()
            self._take(torch.autograd.grad(log_px, leaves, torch.full_like(log_px, -scale), materialize_grads=True))
        else:
            (image, *sizes), (out, shared, *to) = self._image, self._scored_at
            scored = (image, out, shared, *to, log_px_at, scale, len(self.decoder.x), *sizes)
            self.library.head(self.kernel.kind, self.settings, *scored)
        self.decoder.backward(self.adam)
        # A latent below its free bits has none to lose. Without any the comparison would only see rounding.
        self.kl_weight.copy_(beta * (self.kl[t] > free_bits)) if free_bits else self.kl_weight.fill_(beta)
        self.library.draw_back(q, eps, *self._weighed, *self._sizes)

    def _scored(self) -> tuple[Tensor, list[Tensor]]:
        """Return log p(x|z), (1, R), and what it is a function of: the decoder's K outputs, (1, R, P) each, the shared scalars."""
        likelihood, shared = self.config.vae.likelihood, self.config.vae.shared
        leaves = [out.detach().requires_grad_() for out in self.decoder.y[None].chunk(likelihood.outputs, -1)]
        scalars = [] if shared is None else [s.detach().requires_grad_() for s in shared.split(1, -1)]
        x = self.batch[None] if self.draws == 1 else self.batch[None].repeat(1, self.draws, 1)
        with torch.enable_grad():
            log_px: Tensor = likelihood.log_prob(x, *leaves, *scalars)
        return log_px, leaves + scalars

    def _take(self, grads: Sequence[Tensor]) -> None:
        """Keep the gradients of what `_scored` returns."""
        outputs = self.config.vae.likelihood.outputs
        torch.cat([g[0] for g in grads[:outputs]], -1, out=self.decoder.g)
        if grads[outputs:]:
            torch.stack([g.sum() for g in grads[outputs:]], out=self.shared_gradient)

    def _any_objective(self, eps: Tensor, lanes: LaneConstants, beta: Tensor, t: int) -> Tensor:
        """Go from the encoder's outputs to their gradient, for any objective. Return log p(x|z), KL and objective, (3, 1)."""
        with torch.enable_grad():
            q = self.encoder.y[None].detach().requires_grad_()
            mean, log_var = q.chunk(2, -1)
            z = mean[:, None] + torch.exp(log_var / 2)[:, None] * eps
            log_px = _decoded(z, self).view(1, self.draws, self.images)
            bound = self.config.objective(Pass(mean, log_var, eps, z, log_px), beta, lanes.free_bits)
            (g,) = torch.autograd.grad(-bound.sum(), q)
        self.encoder.g.copy_(g[0])
        kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(-1).mean(-1)
        return torch.stack([log_px.detach().mean((1, 2)), kl.detach(), bound.detach()])

    def _update(self, lanes: LaneConstants, chunk: Chunk, t: int, counted: OptimizerState) -> None:
        """Take what is left of the update: all of it if the kernels gave gradients, else that of shared scalars; the average."""
        shared = self.config.vae.shared
        if self.adam is not None and shared is None and not self.config.extras.averages:
            return
        factors, limit, share = self.config.extras.split(chunk.factors[t].unbind(0))
        rates = Rates(chunk.learning_rate[t], lanes.weight_decay, factors)
        if self.adam is None:
            own = {} if shared is None else {id(shared): self.shared_gradient.view_as(shared)}
            maps = cast(tuple[Maps, Maps], maps_of(self.config.vae))
            layers = [layer for chain in maps for layer, _ in chain]
            given = iter((*self.encoder.gradients, *self.decoder.gradients))
            own |= {id(p): next(given) for layer in layers for p in (layer.weight, layer.bias)}
            grads = clipped([own[id(p)] for p in self.params], limit)
            self.config.optimizer.update(self.params, grads, counted, rates)
        elif shared is not None:
            mean, square = self._moments(shared)
            addresses = (x.data_ptr() for x in (shared, self.shared_gradient, mean, square))
            self.library.adam(*addresses, shared.numel(), byref(self.adam))
        if share is not None:
            follow(self.state.slots[AVERAGE], self.params, share)


class _Decoded(torch.autograd.Function):
    """log p(x|z) of z, (1, R), whose backward pass is the decoder's, with its update."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, step: ManualStep) -> Tensor:
        """Return log p(x|z) for z (1, L, B, Z)."""
        step.decoder.x.copy_(z.view_as(step.decoder.x))
        step.decoder.forward()
        ctx.step = step
        ctx.log_px, ctx.leaves = step._scored()
        return cast(Tensor, ctx.log_px.detach())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of z from that of log p(x|z)."""
        step: ManualStep = ctx.step
        step._take(torch.autograd.grad(ctx.log_px, ctx.leaves, grads[0], materialize_grads=True))
        step.decoder.backward(step.adam)
        return cast(Tensor, step.decoder.gx).view(1, step.draws, step.images, -1), None


def _rows(t: Tensor) -> range:
    """Return the addresses of a contiguous tensor's rows."""
    size = t[0].numel() * t.element_size()
    return range(t.data_ptr(), t.data_ptr() + len(t) * size, size)


def _decoded(z: Tensor, step: ManualStep) -> Tensor:
    """Return log p(x|z), (1, R), for z (1, L, B, Z), differentiable by z."""
    return cast(Tensor, _Decoded.apply(z, step))  # type: ignore[no-untyped-call]  # torch leaves it untyped
