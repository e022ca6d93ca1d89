"""Our own products equal float64 ones to rounding, Adam at their end equals torch's, and the step made of them is the step."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness import cohort, engine, products, program
from harness.cohort import Cohort
from harness.data import Data, load
from harness.program import Chunk
from harness.spec import TrialSpec
from tests.test_program import SMALL, assert_same

pytestmark = pytest.mark.skipif(not products.kernel(), reason="no compiler here")
SIZES = [(128, 784, 256), (128, 256, 784), (8, 16, 48), (1, 1, 1), (9, 17, 33), (13, 5, 64), (40, 100, 112), (7, 3, 130)]


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def images(*size: int) -> Tensor:
    """Zeros but for one in five, and columns of nothing else."""
    x = random(*size).clamp(min=0) * (random(*size, seed=1) > 0.5)
    x[:, ::3] = 0
    return x


@pytest.mark.parametrize(("of", "sparse"), [(random, False), (images, False), (images, True), (random, True)])
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_a_product_is_the_product(m: int, k: int, n: int, of: Callable[..., Tensor], sparse: bool) -> None:
    a, b = of(m, k), random(k, n, seed=2)
    exact = a.double() @ b.double()
    for left, right in ((a, b), (a.t().contiguous().t(), b), (a, b.t().contiguous().t())):
        ours = torch.ops.harness.product(left, right, sparse)
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6 * k**0.5 * 3)


def test_subnormal_numbers_are_not_flushed_in_this_process() -> None:
    assert torch.ops.harness.product(random(8, 8), random(8, 8), False).isfinite().all()
    assert float(torch.tensor(2e-38) / 100) > 0


def test_what_is_not_finite_stays_so() -> None:
    a, b = random(16, 32), random(32, 48)
    a[3, 5], b[7, 9] = float("nan"), float("inf")
    ours = torch.ops.harness.product(a, b, False)
    assert ours[3].isnan().all()
    assert not ours[:, 9].isfinite().any()


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_adam_at_the_end_of_a_product_is_adam(optimizer: type, m: int, k: int, n: int) -> None:
    p, mean, square, rate, decay = random(m, n), torch.zeros(m, n), torch.zeros(m, n), 1e-2, 0.1
    theirs = p.clone().requires_grad_()
    adam = optimizer([theirs], lr=rate, weight_decay=decay)
    for step in range(1, 4):
        x, g = images(k, m), random(k, n, seed=step)
        theirs.grad = x.t() @ g
        adam.step()
        scalars = [torch.tensor([v]) for v in (rate / (1 - 0.9**step), (1 - 0.999**step) ** -0.5, rate, decay)]
        rule = (optimizer is torch.optim.AdamW, 0.9, 0.999, 1e-8)
        torch.ops.harness.adam(x, g, p, mean, square, *scalars, step == 2, *rule)
    sums = adam.state[theirs]
    torch.testing.assert_close(mean, sums["exp_avg"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(square, sums["exp_avg_sq"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(p, theirs.detach(), rtol=1e-3, atol=1e-4)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own products for every layer, on any machine."""
    monkeypatch.setattr(engine, "slow_blas", lambda where: True)
    monkeypatch.setattr(cohort, "_PROGRAMS", {})


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"likelihood": "gaussian_per_pixel", "activation": "relu"},
        {"likelihood": "bernoulli", "optimizer": "adamw", "weight_decay": 1e-2},
        {"likelihood": "discretized_logistic", "weight_decay": 1e-2, "learning_rate_decay": 0.1},
        {"objective": "dreg", "num_samples": 2},
        {"objective": "iwae", "num_samples": 3},
    ],
    ids=str,
)
def test_a_step_of_our_products_is_the_step(change: dict, digits: Data) -> None:
    assert_same([SMALL.derive(**change)], digits, fuse=False)


@pytest.mark.slow
@pytest.mark.usefixtures("ours")
def test_a_compiled_step_of_our_products_is_the_step(digits: Data) -> None:
    assert_same([SMALL], digits, fuse=True)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(("change", "layers"), [({}, 8), ({"objective": "dreg", "num_samples": 2}, 8), ({"precision": "bf16"}, 0)])
def test_every_layer_takes_its_step_without_a_gradient(change: dict, layers: int, digits: Data) -> None:
    graph = traced(SMALL.derive(**change), digits)
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert sum("harness.adam" in name for name in called) == layers
    assert sum("harness.settle" in name for name in called) == 1
    if not layers:
        assert not any("harness.product" in name for name in called)


def traced(spec: TrialSpec, data: Data) -> torch.fx.GraphModule:
    one = Cohort([spec], data, torch.device("cpu"))
    size, draws, latents = spec.batch_size, spec.num_samples, spec.latent
    batch, history = torch.zeros(1, 1, size, dtype=torch.long), torch.zeros(1, 3, 1)
    noise = (torch.zeros(1, 1, draws, size, latents), torch.zeros(1, 1, 1, 1))
    chunk = Chunk(batch, *noise, torch.ones(1, 1), torch.ones(1, 1), torch.ones(1), history)
    state = (one.params, one.state.mean, one.state.square)
    return program.trace(one.recipe, state, one._constants(), chunk, torch.zeros(1, dtype=torch.long), own=True)
