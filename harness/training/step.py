"""The training step, as single operations and as one compiled graph that gathers, differentiates and updates.

Shapes: S lanes, L draws, B images, P pixels, Z latents, T steps of a chunk, N images to train on.
"""

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from harness import devices
from harness.kernels import matmul
from harness.kernels.matmul import Matmuls
from harness.kernels.torch_internals import compile_graph
from harness.models.objectives import Objective
from harness.models.vae import VAE, Pass, kl_per_dimension
from harness.training.extras import Extras, clipped, follow
from harness.training.optimizers import Optimizer, Rates

# How steps are taken: operation by operation; as one traced graph, which a GPU captures and launches as a whole; as that graph
# compiled by torch.compile's back end; or by native kernels with a backward pass that is written out (harness/training/manual.py).
Execution = Literal["eager", "graph", "compiled", "manual"]


class StepConfig(NamedTuple):
    """The parts of a step that are not tensors, which stay the same as long as the lanes do."""

    vae: VAE
    objective: Objective
    optimizer: Optimizer
    precision: str
    extras: Extras = Extras()


class LaneConstants(NamedTuple):
    """The tensors that stay the same over a chunk.

    Attributes:
        levels: the grey levels of all images, (N, P).
        weight_decay: per lane, (S,).
        free_bits: per lane, (S,).
    """

    levels: Tensor
    weight_decay: Tensor
    free_bits: Tensor


class Chunk(NamedTuple):
    """The inputs of a chunk's steps, a row per step, and the tensor `history` that the steps write to.

    Attributes:
        batch: the indices of the images, (T, S, B).
        eps: the noise of z, (T, S, L, B, Z).
        u: the pixel noise, (T, S, B, P), or (T, S, 1, 1) if no lane draws any.
        beta: the weight of the KL, (T, S).
        learning_rate: (T, S).
        factors: the optimizer's factors, then those of `Extras`, (T, F, S).
        history: log p(x|z), KL and objective of each step, (T, 3, S).
    """

    batch: Tensor
    eps: Tensor
    u: Tensor
    beta: Tensor
    learning_rate: Tensor
    factors: Tensor
    history: Tensor


class StepInputs(NamedTuple):
    """The inputs that one step takes from its chunk: batch (S, B), eps (S, L, B, Z), u (S, B, P) or (S, 1, 1), beta (S,)."""

    batch: Tensor
    eps: Tensor
    u: Tensor
    beta: Tensor


def gradients(
    config: StepConfig,
    model: Callable[[Tensor, Tensor], Pass],
    params: Sequence[Tensor],
    lanes: LaneConstants,
    inputs: StepInputs,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the gradients of every lane's loss at one batch, and log p(x|z), KL and objective in nats per image, (3, S).

    `model` maps x and eps to a `Pass` with the parameters `params`; the gradients come in their order and shapes.
    """
    batch, eps, u, beta = inputs
    v = lanes.levels.index_select(0, batch.flatten()).view(*batch.shape, -1).float()
    x = config.vae.likelihood.observe(v, u)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=config.precision == "bf16", cache_enabled=False):
        p = model(x, eps)
    bound = config.objective(p, beta, lanes.free_bits)
    grads = torch.autograd.grad(-bound.sum(), params)  # lanes share no parameter, so it is each lane's own gradient
    kl = kl_per_dimension(p.mean.detach(), p.log_var.detach()).sum(-1).mean(-1)
    return grads, torch.stack([p.log_px.detach().mean((1, 2)), kl, bound.detach()])


def trace(
    config: StepConfig,
    state: Sequence[Sequence[Tensor]],
    lanes: LaneConstants,
    chunk: Chunk,
    at: Tensor,
    use_kernels: bool = False,
) -> GraphModule:
    """Return the whole step as one graph of aten operations, without a part outside and without a graph break.

    The graph takes the tensors in the order of `flat`, changes parameters, slots and history in place, and moves `at`, the row of
    the chunk, on by one. `state` is the parameters and then the optimizer's slots. Tracing takes one step on the tensors it is
    called with. If `use_kernels`, matrix products are those of harness.kernels.
    """
    names = [name for name, _ in config.vae.named_parameters()]
    n, groups = len(names), len(state)
    matmuls, optimizer = Matmuls(use_kernels), config.optimizer
    joined = at.device.type != "cpu"

    def update(params: Sequence[Tensor], grads: Sequence[Tensor], slots: Sequence[Sequence[Tensor]], rates: Rates) -> None:
        """Change parameters and slots in place.

        On a GPU all weights of equally many dimensions change together, but each bias by itself: the compiler fuses that with the
        sum that is its gradient.
        """
        together = [i for i, p in enumerate(params) if joined and p.shape[1] > 1]
        for dimensions in sorted({params[i].ndim for i in together}):
            alike = [i for i in together if params[i].ndim == dimensions]
            own_params, own_grads, *own_slots = ([tensors[i] for i in alike] for tensors in (params, grads, *slots))
            optimizer.apply_many(own_params, own_grads, own_slots, rates)
        for i, (p, g, *own) in enumerate(zip(params, grads, *slots, strict=True)):
            if i in together or (optimizer.kernel is not None and matmuls.adam_step(optimizer.kernel, p, g, own, rates)):
                continue
            optimizer.apply(p, g, own, rates)

    def step(*tensors: Tensor) -> None:
        """Take one step on tensors in the order of `flat`, in place."""
        params, *slots = (tensors[i * n : (i + 1) * n] for i in range(groups))
        own = len(optimizer.slots)
        slots, averages = slots[:own], list(chain(*slots[own:]))
        rest = tensors[groups * n :]
        constants = LaneConstants(*rest[: len(LaneConstants._fields)])
        *rows, history, row = rest[len(LaneConstants._fields) :]
        batch, eps, u, beta, learning_rate, factors = (r.index_select(0, row)[0] for r in rows)
        leaves = [p.detach().requires_grad_() for p in params]

        def model(x: Tensor, eps: Tensor) -> Pass:
            """Return the pass of the VAE with the parameters `leaves`."""
            result: Pass = functional_call(config.vae, dict(zip(names, leaves, strict=True)), (matmuls.materialize(x), eps))
            return result

        with torch.enable_grad():
            grads, terms = gradients(config, model, leaves, constants, StepInputs(batch, eps, u, beta))
        with torch.no_grad():
            own_factors, limit, share = config.extras.split(factors.unbind(0))
            rates = Rates(learning_rate, constants.weight_decay, own_factors)
            update(params, clipped(grads, limit), slots, rates)
            follow(averages, params, share)
            history.index_copy_(0, row, terms[None])
            row += 1

    return make_fx(step, decomposition_table=matmuls.table)(*flat(state, lanes, chunk, at))


def flat(state: Sequence[Sequence[Tensor]], lanes: LaneConstants, chunk: Chunk, at: Tensor) -> list[Tensor]:
    """Return all tensors of a step in the order in which its graph takes them."""
    return [*(t for group in state for t in group), *lanes, *chunk, at]


class TracedStep:
    """The whole step as one program: its graph, compiled or as it was traced.

    It is built for one number of lanes, images and steps, and keeps none of the tensors it was built with, so every cohort of equal
    structure and shapes can use it. Torch keeps compiled code on disk, where later processes find it. A graph that is not compiled
    is ready in a second.

    Attributes:
        call: the program, a function of the tensors in the order of `flat`.
        fault: why the compiler failed, so that `call` is the graph as it was traced; empty if it did not, or was not asked.
        seconds: the time that tracing and compiling took.
    """

    def __init__(
        self, config: StepConfig, state: Sequence[Sequence[Tensor]], lanes: LaneConstants, chunk: Chunk, *, compiled: bool
    ) -> None:
        started = time.perf_counter()
        at = torch.zeros(1, dtype=torch.long, device=lanes.levels.device)
        copies = [[t.detach().clone() for t in group] for group in state]  # tracing and compiling take a step each
        chunk = chunk._replace(history=chunk.history.clone())
        graph = trace(config, copies, lanes, chunk, at, use_kernels=matmul.worthwhile(at.device))
        tensors = flat(copies, lanes, chunk, at)
        self.call: Callable[..., object] = graph
        self.fault = ""
        if compiled:
            try:
                with torch.no_grad():
                    self.call = compile_graph(copy.deepcopy(graph), tensors)  # it takes the graph over, and may change it
                    at.zero_()
                    self.call(*tensors)
            except Exception as fault:  # a compiler has any number of ways to fail, and training does not depend on it
                if devices.is_out_of_memory(fault) or devices.is_lost(fault):
                    raise
                self.call, self.fault = graph, f"{type(fault).__name__}: {(str(fault).strip() or 'no message').splitlines()[0]}"
        self.seconds = time.perf_counter() - started


class BoundStep:
    """A traced step bound to a cohort's tensors; on a GPU captured as CUDA graphs, one of a chunk's steps and one of a single step.

    On a GPU it owns the buffers of the chunk, because a captured graph reads fixed addresses.

    Attributes:
        call: the program of the traced step.
        state: the parameters and then the optimizer's slots, which the steps change.
        lanes: the constants that the steps read.
        chunk: the chunk that the steps read.
        at: the row of the chunk that the next step reads, (1,).
        graphs: the launches of the CUDA graphs by the number of steps that each takes, largest first; empty on a CPU.
        seconds: the time that capturing took.

    Raises:
        CaptureError: a launch of a captured graph does not take its steps.
    """

    @torch.no_grad()
    def __init__(self, traced: TracedStep, state: Sequence[Sequence[Tensor]], lanes: LaneConstants, chunk: Chunk) -> None:
        self.call, self.state, self.lanes = traced.call, state, lanes
        device = lanes.levels.device
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.chunk = chunk
        self.graphs: dict[int, Callable[[], None]] = {}
        self.seconds = 0.0
        if devices.can_capture(device):
            started = time.perf_counter()
            self.lanes = LaneConstants(*(t.clone() for t in lanes))._replace(levels=lanes.levels)
            self.chunk = Chunk(*(t.clone() for t in chunk))
            before = [[t.clone() for t in group] for group in state]
            take = partial(self.call, *flat(self.state, self.lanes, self.chunk, self.at))
            pool = devices.memory_pool()
            for steps in sorted({len(chunk.batch), 1}, reverse=True):
                self.at.zero_()
                self.graphs[steps] = devices.capture(take, steps, device, pool)
                self._check(steps)
            for tensor, original in zip(chain(*state), chain(*before), strict=True):  # capturing takes steps too
                tensor.copy_(original)
            self.seconds = time.perf_counter() - started

    def _check(self, steps: int) -> None:
        """Raise CaptureError unless a launch of the graph of so many steps moves the row by these and changes the weights."""
        self.at.zero_()
        before = [p.clone() for p in self.state[0]]
        self.graphs[steps]()
        moved = int(self.at)
        unchanged = all(torch.equal(p, old) for p, old in zip(self.state[0], before, strict=True))
        if moved != steps or unchanged:
            what = f"took {moved}" + (" and left all weights as they were" if unchanged else "")
            raise devices.CaptureError(
                f"a launch of {steps} captured steps {what}: it was captured beside the device that it runs on"
            )

    def run(self, lanes: LaneConstants, chunk: Chunk, steps: int, mark: Callable[[int], None]) -> None:
        """Take the first `steps` steps of a chunk and write its history. Call `mark` with the number of steps after each launch."""
        if not self.graphs:
            self.lanes, self.chunk = lanes, chunk
            self.again(steps, mark)
            return
        for buffer, value in zip((*self.lanes[1:], *self.chunk), (*lanes[1:], *chunk), strict=True):
            buffer.copy_(value)
        self.again(steps, mark)
        chunk.history.copy_(self.chunk.history)

    @torch.no_grad()
    def again(self, steps: int, mark: Callable[[int], None]) -> None:
        """Take the first `steps` steps of the chunk that is in the buffers. On a GPU this never waits for the device."""
        self.at.zero_()
        if not self.graphs:
            tensors = flat(self.state, self.lanes, self.chunk, self.at)
            for _ in range(steps):
                self.call(*tensors)
                mark(1)
            return
        left = steps
        for size, launch in self.graphs.items():
            for _ in range(left // size):
                launch()
                mark(size)
            left %= size
