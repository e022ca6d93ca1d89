"""The training step: as operations one after another, and as one compiled graph that gathers, differentiates and updates.

Shapes: S lanes, L draws, B images, P pixels, Z latents, T steps of a chunk, N images to train on.
"""

import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from harness import engine, products
from harness.objectives import Objective
from harness.optim import Adam, Correction
from harness.products import Products
from harness.vae import VAE, Pass, kl_per_dimension

REPLAY = 8  # steps of one launch of a CUDA graph


class Recipe(NamedTuple):
    """What a step does, apart from all tensors: fixed for as long as the lanes are."""

    vae: VAE
    objective: Objective
    optimizer: Adam
    precision: str


class Lanes(NamedTuple):
    """What stays the same over a chunk: grey levels (N, P) of all images and, per lane, (S,)."""

    levels: Tensor
    learning_rate: Tensor
    weight_decay: Tensor
    free_bits: Tensor


class Chunk(NamedTuple):
    """What the steps of a chunk read, a row per step, and where they write `history`.

    batch (T, S, B) says which images; eps (T, S, L, B, Z); u (T, S, B, P), or (T, S, 1, 1) where no lane draws pixel noise;
    beta (T, S); Adam's corrections rate (T, S) and spread (T,). history (T, 3, S) is log p(x|z), KL and objective.
    """

    batch: Tensor
    eps: Tensor
    u: Tensor
    beta: Tensor
    rate: Tensor
    spread: Tensor
    history: Tensor


def gradients(
    recipe: Recipe,
    model: Callable[[Tensor, Tensor], Pass],
    params: Sequence[Tensor],
    lanes: Lanes,
    batch: Tensor,
    eps: Tensor,
    u: Tensor,
    beta: Tensor,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Every lane's gradient of its loss at one batch (S, B), and log p(x|z), KL and objective, (3, S)."""
    v = lanes.levels.index_select(0, batch.flatten()).view(*batch.shape, -1).float()
    x = recipe.vae.likelihood.observe(v, u)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.precision == "bf16", cache_enabled=False):
        p = model(x, eps)
    bound = recipe.objective(p, beta, lanes.free_bits)
    grads = torch.autograd.grad(-bound.sum(), params)  # lanes share no parameter, so it is each lane's own gradient
    kl = kl_per_dimension(p.mean.detach(), p.log_var.detach()).sum(-1).mean(-1)
    return grads, torch.stack([p.log_px.detach().mean((1, 2)), kl, bound.detach()])


def trace(
    recipe: Recipe, state: Sequence[Sequence[Tensor]], lanes: Lanes, chunk: Chunk, at: Tensor, own: bool = False
) -> GraphModule:
    """The whole step as one graph of aten operations, of which nothing is left out and in which nothing can break.

    The graph takes what `flat` makes of all but the recipe, changes parameters, moments and history in place, and moves `at`, the
    row of the chunk, on by one. `state` is parameters, first and second moments. Tracing takes the step, on the tensors given.
    Products are by our `own` kernel if asked for.
    """
    names = [name for name, _ in recipe.vae.named_parameters()]
    n = len(names)
    made = Products(own)

    def step(*tensors: Tensor) -> None:
        params, mean, square = (tensors[i * n : (i + 1) * n] for i in range(3))
        given = Lanes(*tensors[3 * n : 3 * n + len(Lanes._fields)])
        *rows, history, row = tensors[3 * n + len(Lanes._fields) :]
        batch, eps, u, beta, rate, spread = (r.index_select(0, row)[0] for r in rows)
        leaves = [p.detach().requires_grad_() for p in params]

        def model(x: Tensor, eps: Tensor) -> Pass:
            return functional_call(recipe.vae, dict(zip(names, leaves, strict=True)), (made.settle(x), eps))

        with torch.enable_grad():
            grads, terms = gradients(recipe, model, leaves, given, batch, eps, u, beta)
        with torch.no_grad():
            rates = (Correction(rate, spread), given.learning_rate, given.weight_decay)
            for p, g, m, v in zip(params, grads, mean, square, strict=True):
                if not made.update(recipe.optimizer, p, g, m, v, *rates):
                    recipe.optimizer.apply([p], [g], [m], [v], *rates)
            history.index_copy_(0, row, terms[None])
            row += 1

    return make_fx(step, decomposition_table=made.table)(*flat(state, lanes, chunk, at))


def flat(state: Sequence[Sequence[Tensor]], lanes: Lanes, chunk: Chunk, at: Tensor) -> list[Tensor]:
    """All tensors of a step, in the order in which its graph takes them."""
    return [*(t for group in state for t in group), *lanes, *chunk, at]


class Compiled:
    """The whole step as one program, `torch.compile` of its one graph: on a GPU captured as a CUDA graph of several steps.

    It is built for one number of lanes, images and steps, and keeps no tensor of those it was built with, so every cohort of equal
    structure and shapes can use it. Compiled code is kept on disk by torch and found again by later processes. Without `fuse` the
    graph is left as it was traced: ready in a second, for a probe.

    Attributes:
        seconds: what tracing and compiling took.
    """

    def __init__(self, recipe: Recipe, state: Sequence[Sequence[Tensor]], lanes: Lanes, chunk: Chunk, *, fuse: bool = True) -> None:
        started = time.perf_counter()
        at = torch.zeros(1, dtype=torch.long, device=lanes.levels.device)
        copies = [[t.clone() for t in group] for group in state]  # tracing and compiling take a step each
        chunk = chunk._replace(history=chunk.history.clone())
        graph = trace(recipe, copies, lanes, chunk, at, own=products.pay(at.device))
        tensors = flat(copies, lanes, chunk, at)
        with torch.no_grad():
            self.call = engine.program(graph, tensors) if fuse else graph
            at.zero_()
            self.call(*tensors)
        self.seconds = time.perf_counter() - started


class Bound:
    """A compiled step and a cohort's tensors. On a GPU it owns the chunk's buffers, for a captured graph reads fixed places."""

    @torch.no_grad()
    def __init__(self, compiled: Compiled, state: Sequence[Sequence[Tensor]], lanes: Lanes, chunk: Chunk) -> None:
        self.call, self.state, self.lanes = compiled.call, state, lanes
        self.at = torch.zeros(1, dtype=torch.long, device=lanes.levels.device)
        self.chunk = chunk
        self.graphs: dict[int, Callable[[], None]] = {}  # by the steps that one takes; none on a CPU
        if engine.can_capture(lanes.levels.device):
            self.lanes = Lanes(*(t.clone() for t in lanes))._replace(levels=lanes.levels)
            self.chunk = Chunk(*(t.clone() for t in chunk))
            before = [[t.clone() for t in group] for group in state]
            tensors = flat(self.state, self.lanes, self.chunk, self.at)
            self.graphs = {steps: engine.captured(lambda: self.call(*tensors), steps) for steps in (REPLAY, 1)}
            for changed, kept in zip(chain(*state), chain(*before), strict=True):
                changed.copy_(kept)

    def run(self, lanes: Lanes, chunk: Chunk, steps: int, mark: Callable[[int], None]) -> None:
        """Take the chunk's first `steps` steps, with a `mark` (of how many steps) after each piece."""
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
        """Take the first `steps` steps of the chunk it holds. On a GPU nothing in here waits for the device."""
        self.at.zero_()
        if not self.graphs:
            tensors = flat(self.state, self.lanes, self.chunk, self.at)
            for _ in range(steps):
                self.call(*tensors)
                mark(1)
            return
        for piece in [REPLAY] * (steps // REPLAY) + [1] * (steps % REPLAY):
            self.graphs[piece]()
            mark(piece)
