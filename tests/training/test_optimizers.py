from collections.abc import Callable
from functools import partial
from itertools import chain

import pytest
import torch
from tables import OPTIMIZERS
from torch import Tensor

from harness.training import optimizers
from harness.training.optimizers import Optimizer, Rates

SHAPES = [(6, 4), (1, 4), (1, 1)]
RATES = [1e-3, 3e-2, 0.5]
DECAYS = [0.0, 0.1, 0.01]
STEPS = 20
TORCH = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


def ours(name: str, start: list[Tensor], grads: list[list[Tensor]], lanes: list[int]) -> list[Tensor]:
    params = [p[lanes].clone() for p in start]
    optimizer = OPTIMIZERS[name]
    state = optimizers.start(optimizer, params)
    for step, rates in zip(grads, rates_of(optimizer, lanes), strict=True):
        optimizer.update(params, [g if len(lanes) == len(g) else g[lanes] for g in step], state, rates)
    assert state.step == STEPS
    return params


def rates_of(optimizer: Optimizer, lanes: list[int]) -> list[Rates]:
    """What each step is told."""
    rate, decay = torch.tensor(RATES)[lanes].expand(STEPS, -1), torch.tensor(DECAYS)[lanes]
    factors = optimizer.factors(torch.arange(1, STEPS + 1), rate)
    return [Rates(r, decay, f.unbind(0)) for r, f in zip(rate, factors, strict=True)]


def theirs(name: str, start: list[Tensor], grads: list[list[Tensor]], lane: int) -> list[Tensor]:
    params = [p[lane].clone().requires_grad_() for p in start]
    optimizer = TORCH[name](params, lr=RATES[lane], weight_decay=DECAYS[lane])
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = g[lane].clone()
        optimizer.step()
    return [p.detach() for p in params]


@pytest.fixture(scope="module")
def problem() -> tuple[list[Tensor], list[list[Tensor]]]:
    g = torch.Generator().manual_seed(0)
    start = [torch.randn(3, *shape, generator=g) for shape in SHAPES]
    size = torch.logspace(-4, 2, STEPS)  # gradients from 1e-4 to 100: the moments' corrections matter
    return start, [[s * torch.randn(p.shape, generator=g) for p in start] for s in size]


def by_operations(name: str, start: list[Tensor], grads: list[list[Tensor]], lanes: list[int]) -> list[Tensor]:
    params = [p[lanes].clone() for p in start]
    optimizer = OPTIMIZERS[name]
    state = optimizers.start(optimizer, params)
    for step, rates in zip(grads, rates_of(optimizer, lanes), strict=True):
        for p, g, *slots in zip(params, [g[lanes] for g in step], *state.slots.values(), strict=True):
            optimizer.apply(p, g, slots, rates)
    return params


@pytest.mark.parametrize("way", [ours, by_operations])
@pytest.mark.parametrize("lanes", [[0], [1], [2], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ours_is_torchs_in_every_lane(
    name: str, lanes: list[int], way: Callable[..., list[Tensor]], problem: tuple[list[Tensor], list[list[Tensor]]]
) -> None:
    got = way(name, *problem, lanes)
    for i, lane in enumerate(lanes):
        for mine, reference in zip(got, theirs(name, *problem, lane), strict=True):
            torch.testing.assert_close(mine[i], reference, rtol=1e-4, atol=2e-5)  # fp32, 20 steps of up to 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_may_lie_in_memory_in_any_order(name: str, problem: tuple[list[Tensor], list[list[Tensor]]]) -> None:
    """Those of linear layers under vmap are transposed."""
    start, grads = problem
    turned = [[g.transpose(1, 2).contiguous().transpose(1, 2) for g in step] for step in grads]
    assert turned[0][0].stride() != grads[0][0].stride()
    for a, b in zip(ours(name, start, turned, [0, 1, 2]), ours(name, start, grads, [0, 1, 2]), strict=True):
        assert torch.equal(a, b)


def test_every_optimizer_has_a_counterpart() -> None:
    assert set(TORCH) == set(OPTIMIZERS)


def test_decay_is_in_the_gradient_or_beside_it(problem: tuple[list[Tensor], list[list[Tensor]]]) -> None:
    coupled, decoupled = (ours(name, *problem, [1])[0] for name in ("adam", "adamw"))
    assert not torch.allclose(coupled, decoupled, atol=1e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_many_parameters_together_change_as_one_by_one(name: str) -> None:
    """As on a GPU, where the compiler makes one kernel of it."""
    optimizer, lanes, generator = OPTIMIZERS[name], len(RATES), torch.Generator().manual_seed(0)

    def drawn() -> list[Tensor]:
        return [torch.randn(lanes, *shape, generator=generator) for shape in SHAPES]

    params, slots = drawn(), [[t.square() for t in drawn()] for _ in optimizer.slots]
    together, own_slots = [p.clone() for p in params], [[t.clone() for t in group] for group in slots]
    for rates in rates_of(optimizer, list(range(lanes))):
        grads = drawn()
        for p, g, *own in zip(params, grads, *slots, strict=True):
            optimizer.apply(p, g, own, rates)
        optimizer.apply_many(together, grads, own_slots, rates)
    for a, b in zip([*params, *chain(*slots)], [*together, *chain(*own_slots)], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
