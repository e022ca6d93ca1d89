import pytest
import torch

from harness import devices
from harness.data import Data, load_dataset
from harness.errors import UserError
from harness.spec import TrialSpec
from harness.training import planner

CPU = torch.device("cpu")
SMALL = TrialSpec(dataset="digits", batch_size=32, epochs=2)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


def test_a_cpu_gets_one_lane_per_worker(digits: Data) -> None:
    plan = planner.plan([SMALL.derive(seed=s) for s in range(64)], digits, CPU, workers=2)
    assert (plan.workers, plan.lanes, plan.mixed) == (2, 1, frozenset())
    assert "one trial each" in plan.why


def test_only_long_training_is_compiled(digits: Data) -> None:
    long, short = SMALL.derive(epochs=400), SMALL.derive(activation="relu")
    plan = planner.plan([long, short], digits, CPU, workers=1)
    assert plan.compiled == {long.cohort}
    assert "1 of 2 programs" in plan.why
    many = planner.plan([short.derive(seed=s) for s in range(400)], digits, CPU, workers=2)
    assert many.compiled == {short.cohort}  # one program serves them all


def test_without_a_compiler_nothing_is_compiled_and_it_is_said(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    plan = planner.plan([SMALL.derive(epochs=400)], digits, CPU, workers=1)
    assert not plan.compiled
    assert "no C compiler" in plan.why


def test_groups_are_mixed_where_the_plan_says_so() -> None:
    relu = SMALL.derive(activation="relu", seed=3)
    apart = planner.Plan(1, 8, frozenset(), frozenset(), "")
    together = planner.Plan(1, 8, frozenset(), frozenset({SMALL.mixed}), "")
    assert apart.group(SMALL) != apart.group(relu)
    assert together.group(SMALL) == together.group(relu)


def test_the_probe_times_a_step_of_one_trial(digits: Data) -> None:
    alone = planner.trial_step([SMALL], digits, CPU)
    company = planner.trial_step([SMALL.derive(seed=s) for s in range(4)], digits, CPU)
    assert min(alone, company) > 0


@pytest.mark.parametrize(("times", "allowed"), [((1.0, 2.0), False), ((2.0, 1.0), True)])
def test_bf16_on_a_cpu_is_measured(
    times: tuple[float, float], allowed: bool, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "product_ms", lambda precision: times[precision is torch.bfloat16])
    spec = SMALL.derive(precision="bf16")
    if allowed:
        assert planner.plan([spec], digits, CPU, workers=1)
        return
    with pytest.raises(UserError, match=r"does not pay on .* 2\.00 ms in bf16, 1\.00 ms in fp32"):
        planner.plan([spec], digits, CPU, workers=1)


def test_tf32_is_for_gpus(digits: Data) -> None:
    with pytest.raises(UserError, match="'tf32' is for a CUDA GPU"):
        planner.plan([SMALL.derive(precision="tf32")], digits, CPU, workers=1)


def test_products_are_strict_unless_allowed() -> None:
    before = torch.get_float32_matmul_precision()
    with devices.tensor_cores(True):
        assert torch.get_float32_matmul_precision() == "high"
        with devices.tensor_cores(False):
            assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(("lanes", "bucket"), [(1, 1), (2, 2), (3, 4), (33, 64), (64, 64)])
def test_buckets(lanes: int, bucket: int) -> None:
    assert devices.bucket(lanes) == bucket
