"""Our own products equal float64 ones to rounding, Adam at their end equals torch's, and the step made of them is the step."""

from collections.abc import Callable, Sequence

import pytest
import torch
from steps import SMALL, assert_same
from torch import Tensor

from harness.data import Data, load_dataset
from harness.kernels import matmul, operators
from harness.spec import TrialSpec
from harness.training import step
from harness.training.batches import BatchStream
from harness.training.cohort import Cohort
from harness.training.step import LaneConstants

pytestmark = pytest.mark.skipif(not operators.available(), reason="no native library here")
SIZES = [(128, 784, 256), (128, 256, 784), (8, 16, 48), (1, 1, 1), (9, 17, 33), (13, 5, 64), (40, 100, 112), (7, 3, 130)]
LANES = 2


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def images(*size: int) -> Tensor:
    """Zeros but for one in five, and columns of nothing else."""
    x = random(*size).clamp(min=0) * (random(*size, seed=1) > 0.5)
    x[..., ::3] = 0
    return x


@pytest.mark.parametrize(("of", "sparse"), [(random, False), (images, False), (images, True), (random, True)])
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_a_product_is_the_product(m: int, k: int, n: int, of: Callable[..., Tensor], sparse: bool) -> None:
    a, b = of(LANES, m, k), random(LANES, k, n, seed=2)
    exact = a.double() @ b.double()
    for left, right in (
        (a, b),
        (a.mT.contiguous().mT, b),
        (a, b.mT.contiguous().mT),
        (a.transpose(0, 1).contiguous().transpose(0, 1), b),
    ):
        ours = torch.ops.harness.matmul(left, right, sparse)
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6 * k**0.5 * 3)


def test_subnormal_numbers_are_not_flushed_in_this_process() -> None:
    assert torch.ops.harness.matmul(random(1, 8, 8), random(1, 8, 8), False).isfinite().all()
    assert float(torch.tensor(2e-38) / 100) > 0


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RuntimeError, match="do not fit"):
        torch.ops.harness.matmul(random(1, 8, 8), random(1, 9, 8), False)


def test_what_is_not_finite_stays_so() -> None:
    a, b = random(16, 32), random(32, 48)
    a[3, 5], b[7, 9] = float("nan"), float("inf")
    ours = torch.ops.harness.matmul(a[None], b[None], False)[0]
    assert ours[3].isnan().all()
    assert not ours[:, 9].isfinite().any()


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_adam_at_the_end_of_a_product_is_adam(optimizer: type, m: int, k: int, n: int) -> None:
    p, mean, square = random(LANES, m, n), torch.zeros(LANES, m, n), torch.zeros(LANES, m, n)
    rates, decays = (1e-2, 3e-3), (0.1, 0.02)
    theirs = [lane.clone().requires_grad_() for lane in p]
    adams = [optimizer([lane], lr=rate, weight_decay=decay) for lane, rate, decay in zip(theirs, rates, decays, strict=True)]
    for number in range(1, 4):
        x, g = images(LANES, k, m), random(LANES, k, n, seed=number)
        for lane, adam, gradient in zip(theirs, adams, x.mT @ g, strict=True):
            lane.grad = gradient
            adam.step()
        corrected, spread = torch.tensor(rates) / (1 - 0.9**number), torch.full((LANES,), (1 - 0.999**number) ** -0.5)
        rule = (optimizer is torch.optim.AdamW, 0.9, 0.999, 1e-8)
        scalars = (corrected, spread, torch.tensor(rates), torch.tensor(decays))
        torch.ops.harness.adam(x, g, p, mean, square, *scalars, number == 2, *rule)
    for lane, adam in enumerate(adams):
        sums = adam.state[theirs[lane]]
        torch.testing.assert_close(mean[lane], sums["exp_avg"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(square[lane], sums["exp_avg_sq"], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(p[lane], theirs[lane].detach(), rtol=1e-3, atol=1e-4)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own products for every layer, on any machine."""
    monkeypatch.setattr(matmul, "worthwhile", lambda where: True)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"likelihood": "gaussian_per_pixel", "activation": "relu", "seed": 3},  # of other seeds, rounding turns a unit on or off
        {"likelihood": "bernoulli", "optimizer": "adamw", "weight_decay": 1e-2},
        {"likelihood": "discretized_logistic", "weight_decay": 1e-2, "learning_rate_decay": 0.1},
        {"objective": "dreg", "num_samples": 2},
    ],
    ids=str,
)
def test_a_step_of_our_products_is_the_step(change: dict, digits: Data) -> None:
    assert_same([SMALL.derive(**change)], digits, "graph")


@pytest.mark.usefixtures("ours")
def test_a_step_of_our_products_is_the_step_for_several_lanes(digits: Data) -> None:
    specs = [SMALL, SMALL.derive(seed=1), SMALL.derive(likelihood="mse", activation="relu", learning_rate=3e-4)]
    assert_same(specs, digits, "graph")
    called = operations(traced(specs, digits))
    assert sum("harness.adam" in name for name in called) == 8
    assert not any("bmm" in name or "aten.mm" in name for name in called)


@pytest.mark.slow
@pytest.mark.usefixtures("ours")
def test_a_compiled_step_of_our_products_is_the_step(digits: Data) -> None:
    assert_same([SMALL], digits, "compiled")


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(("change", "layers"), [({}, 8), ({"objective": "dreg", "num_samples": 2}, 8), ({"precision": "bf16"}, 0)])
def test_every_layer_takes_its_step_without_a_gradient(change: dict, layers: int, digits: Data) -> None:
    called = operations(traced([SMALL.derive(**change)], digits))
    assert sum("harness.adam" in name for name in called) == layers
    assert sum("harness.materialize" in name for name in called) == 1
    if not layers:
        assert not any("harness.matmul" in name for name in called)


def operations(graph: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def traced(specs: Sequence[TrialSpec], data: Data) -> torch.fx.GraphModule:
    one = Cohort(specs, data, torch.device("cpu"))
    chunk = next(BatchStream(one.lanes, one.levels, one.steps_per_epoch, 0, one.config.optimizer).chunks(1, whole=False))
    state = (one.params, *one.state.slots.values())
    constants = LaneConstants(one.levels, one.weight_decay, one.free_bits)
    return step.trace(one.config, state, constants, chunk, torch.zeros(1, dtype=torch.long), use_kernels=True)
