from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.optim import OPTIMIZERS, Correction

SHAPES = [(6, 4), (1, 4), (1, 1)]
RATES = [1e-3, 3e-2, 0.5]
DECAYS = [0.0, 0.1, 0.01]
STEPS = 20
TORCH = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def ours(name: str, start: list[Tensor], grads: list[list[Tensor]], lanes: list[int]) -> list[Tensor]:
    params = [p[lanes].clone() for p in start]
    optimizer = OPTIMIZERS[name]
    state = optimizer.init(params)
    rate, decay = torch.tensor(RATES)[lanes], torch.tensor(DECAYS)[lanes]
    for step in grads:
        optimizer.update(params, [g[lanes] for g in step], state, rate, decay)
    return params


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
    state = optimizer.init(params)
    rate, decay = torch.tensor(RATES)[lanes], torch.tensor(DECAYS)[lanes]
    rates, spreads = optimizer.corrections(torch.arange(1, len(grads) + 1), rate)
    for step, *correction in zip(grads, rates, spreads, strict=True):
        optimizer.apply(params, [g[lanes] for g in step], state.mean, state.square, Correction(*correction), rate, decay)
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


def test_every_optimizer_has_a_counterpart() -> None:
    assert set(TORCH) == set(OPTIMIZERS)


def test_decay_is_in_the_gradient_or_beside_it(problem: tuple[list[Tensor], list[list[Tensor]]]) -> None:
    coupled, decoupled = (ours(name, *problem, [1])[0] for name in ("adam", "adamw"))
    assert not torch.allclose(coupled, decoupled, atol=1e-3)
