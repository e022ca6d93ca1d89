import pytest
import torch

from harness import devices
from harness.data import Data, load_dataset
from harness.errors import MachineError, UserError
from harness.kernels import library
from harness.models import lanes as lanes_of
from harness.models.vae import mixing_group
from harness.spec import TrialSpec
from harness.study import load_study
from harness.training import planner
from harness.training.cohort import Cohort
from harness.training.planner import Probe, Probed

CPU = torch.device("cpu")
GPU = torch.device("cuda")  # of which planning uses none
SMALL = TrialSpec(dataset="digits", batch_size=32, epochs=2)
BY_OPERATIONS = {"network": "mlp", "hidden": (16,), "network_args": {"norm": True}}  # what the native kernels do not know


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


def test_a_cpu_gets_one_lane_per_worker(digits: Data) -> None:
    plan = planner.plan([SMALL.derive(seed=s) for s in range(64)], digits, CPU, workers=2)
    assert (plan.workers, plan.lanes, plan.mixed) == (2, 1, frozenset())
    assert "one trial each" in plan.why


def test_fully_connected_networks_take_native_kernels_however_short(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [SMALL, SMALL.derive(epochs=400), SMALL.derive(**BY_OPERATIONS), SMALL.derive(network="conv")]
    plan = planner.plan(specs, digits, CPU, workers=1)
    assert [plan.execution(s) for s in specs] == ["manual", "manual", "eager", "eager"]
    assert "2 of 4 programs by native kernels" in plan.why
    monkeypatch.setattr(library, "_load", lambda: library._Loaded(None, "g++ failed: no space"))
    without = planner.plan(specs, digits, CPU, workers=1)
    assert "manual" not in [without.execution(s) for s in specs]
    assert "no native kernels: g++ failed: no space" in without.why


def test_only_long_training_is_compiled(digits: Data) -> None:
    long, short = (SMALL.derive(**BY_OPERATIONS, **more) for more in ({"epochs": 400}, {"activation": "relu"}))
    plan = planner.plan([long, short], digits, CPU, workers=1)
    assert [plan.execution(s) for s in (long, short)] == ["compiled", "eager"]
    assert "1 of 2 programs compiled" in plan.why
    many = planner.plan([short.derive(seed=s) for s in range(400)], digits, CPU, workers=2)
    assert many.execution(short) == "compiled"  # one program serves them all


@pytest.mark.parametrize("epochs", [1, 10, 1_499, 1_500, 10_000])
def test_a_trial_alone_on_a_cpu_is_taken_as_in_a_study_of_its_own(epochs: int, digits: Data) -> None:
    spec = TrialSpec(dataset="digits", epochs=epochs, **BY_OPERATIONS)
    wanted = planner.plan([spec], digits, CPU, workers=1).execution(spec)
    assert planner.execution_alone(spec, digits, CPU) == wanted


def test_a_trial_alone_on_a_gpu_is_compiled_if_it_is_long(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [TrialSpec(dataset="digits", epochs=epochs, **BY_OPERATIONS) for epochs in (50, 50_000)]
    assert [planner.execution_alone(s, digits, GPU) for s in specs] == ["graph", "compiled"]
    monkeypatch.setattr(devices, "compiler", lambda device: None)
    assert [planner.execution_alone(s, digits, GPU) for s in specs] == ["graph", "graph"]
    assert "compiled" not in [planner.execution_alone(s, digits, CPU) for s in specs]


def test_without_a_compiler_nothing_is_compiled_and_it_is_said(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    plan = planner.plan([SMALL.derive(**BY_OPERATIONS, epochs=400)], digits, CPU, workers=1)
    assert plan.execution(SMALL.derive(**BY_OPERATIONS, epochs=400)) != "compiled"
    assert "no C++ compiler" in plan.why


def test_groups_are_mixed_where_the_plan_says_so() -> None:
    relu = SMALL.derive(activation="relu", seed=3)
    apart = planner.Plan(1, 8, frozenset(), "")
    together = planner.Plan(1, 8, frozenset({mixing_group(SMALL)}), "")
    assert apart.group(SMALL) != apart.group(relu)
    assert together.group(SMALL) == together.group(relu)


def test_the_probe_times_a_step_of_one_trial(digits: Data) -> None:
    alone = planner.trial_step([SMALL], digits, CPU, 0.01)
    company = planner.trial_step([SMALL.derive(seed=s) for s in range(4)], digits, CPU, 0.01)
    assert min(alone, company) > 0


@pytest.mark.parametrize(("times", "allowed"), [((1.0, 2.0), False), ((2.0, 1.0), True)])
def test_bf16_on_a_cpu_is_measured(
    times: tuple[float, float], allowed: bool, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.precision, "product_ms", lambda precision: times[precision is torch.bfloat16])
    spec = SMALL.derive(precision="bf16")
    if allowed:
        assert planner.plan([spec], digits, CPU, workers=1)
        return
    with pytest.raises(UserError, match=r"does not pay on .* 2\.00 ms in bf16, 1\.00 ms in fp32"):
        planner.plan([spec], digits, CPU, workers=1)


def test_tf32_is_for_gpus(digits: Data) -> None:
    with pytest.raises(UserError, match="'tf32' is for a CUDA GPU"):
        planner.plan([SMALL.derive(precision="tf32")], digits, CPU, workers=1)


def test_products_and_convolutions_are_strict_unless_allowed() -> None:
    def allowed() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = allowed()
    with devices.tensor_cores(True):
        assert allowed() == ("high", True)
        with devices.tensor_cores(False):
            assert allowed() == ("highest", False)
    assert allowed() == before


@pytest.mark.parametrize(("lanes", "bucket"), [(1, 1), (2, 2), (3, 4), (33, 64), (64, 64)])
def test_buckets(lanes: int, bucket: int) -> None:
    assert lanes_of.bucket(lanes) == bucket


# -------------------------------------------------------------------------------- on a GPU


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with room for any number of lanes, and a C compiler."""
    monkeypatch.setattr(devices, "memory_holds", lambda device, size, workers: 10_000 // workers)
    monkeypatch.setattr(devices, "compiler", lambda device: "cc")


def unasked(task: Probe) -> Probed:
    raise AssertionError("a short study is not probed")


def cells(name: str, budget: str) -> list[TrialSpec]:
    return [c.spec.derive(dataset="digits") for c in load_study(name).cells(budget)]


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize("budget", ["smoke", "default"])
def test_the_loss_ablation_takes_two_programs(budget: str, digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "_probe_elsewhere", unasked)
    specs = cells("loss_ablation", budget)
    plan = planner.plan(specs, digits, GPU, workers=1)
    assert len({plan.group(s) for s in specs}) == 2  # gaussian_per_pixel has two outputs per pixel
    assert plan.lanes >= max(sum(plan.group(s) == g for s in specs) for g in {plan.group(s) for s in specs})
    assert {plan.execution(s) for s in specs} == {"graph"}
    assert "2 programs" in plan.why


@pytest.mark.usefixtures("roomy")
def test_trials_are_spread_over_all_gpus(digits: Data) -> None:
    specs = [SMALL.derive(seed=s) for s in range(32)]
    assert [planner.plan(specs, digits, GPU, workers=n).lanes for n in (1, 2, 4)] == [32, 16, 8]


def test_lanes_fit_into_a_worker_s_share_of_the_memory(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "memory_holds", lambda device, size, workers: 100 // workers)
    specs = [SMALL.derive(seed=s) for s in range(128)]
    assert planner.plan(specs, digits, GPU, workers=1).lanes == 64
    assert planner.plan(specs, digits, GPU, workers=2, per_gpu=2).lanes == 32


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize(("step_s", "compiled"), [(1e-3, True), (1e-6, False)])
def test_compiling_is_weighed_against_what_it_saves(
    step_s: float, compiled: bool, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Probe] = []
    monkeypatch.setattr(planner, "_probe_elsewhere", lambda task: asked.append(task) or Probed(4, step_s))
    specs = [SMALL.derive(seed=s, epochs=20_000) for s in range(8)]
    plan = planner.plan(specs, digits, GPU, workers=1)
    assert (asked[0].most, plan.lanes) == (8, 4)
    assert [plan.execution(s) for s in specs] == ["compiled" if compiled else "graph"] * 8


@pytest.mark.usefixtures("roomy")
def test_without_a_c_compiler_steps_on_a_gpu_are_captured_as_traced(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "compiler", lambda device: None)
    monkeypatch.setattr(planner, "_probe_elsewhere", lambda task: Probed(8, 1.0))
    plan = planner.plan([SMALL.derive(epochs=20_000)], digits, GPU, workers=1)
    assert plan.execution(SMALL) == "graph"
    assert "no C compiler" in plan.why


@pytest.mark.parametrize(
    ("costs", "lanes"), [({8: 1.0, 4: 2.0}, 8), ({8: 1.0, 4: 1.05, 2: 2.0}, 4), ({8: 9.0, 4: 5.0, 2: 3.0, 1: 1.0}, 1)]
)
def test_the_probe_takes_the_most_lanes_that_are_worth_their_memory(
    costs: dict[int, float], lanes: int, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "trial_step", lambda specs, *_: costs[len(specs)])
    assert planner.probe(Probe(SMALL, 8, "cpu"), digits) == Probed(lanes, costs[lanes] * lanes)


def test_the_probe_halves_what_does_not_fit_and_fails_if_nothing_does(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(specs: list[TrialSpec], *_: object) -> float:
        if len(specs) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0 / len(specs)

    monkeypatch.setattr(planner, "trial_step", step)
    fits = 2
    assert planner.probe(Probe(SMALL, 8, "cpu"), digits) == Probed(2, 1.0)
    fits = 0
    with pytest.raises(MachineError, match="out of memory with one trial"):
        planner.probe(Probe(SMALL, 8, "cpu"), digits)


@pytest.mark.slow
def test_the_probe_runs_in_a_process_of_its_own() -> None:
    lanes, step_s = planner._probe_elsewhere(Probe(SMALL, 2, "cpu"))
    assert lanes in (1, 2)
    assert step_s > 0
    with pytest.raises(MachineError, match=r"the probe of cuda:99 failed: MachineError: DEVICE=cuda:99"):
        planner._probe_elsewhere(Probe(SMALL, 2, "cuda:99"))


def test_a_network_says_itself_from_how_many_steps_compiling_pays(digits: Data) -> None:
    """1197 images in steps of 32: 38 steps an epoch, so 200 epochs are 7,600, more than 4,000 and less than 15,000."""
    mlp, conv = (SMALL.derive(**of, batch_size=32, epochs=200) for of in (BY_OPERATIONS, {"network": "conv"}))
    plan = planner.plan([mlp, conv], digits, CPU, workers=1)
    if devices.compiler(CPU) is not None:
        assert plan.execution(mlp) != "compiled"
        assert plan.execution(conv) == "compiled"


def test_memory_counts_what_a_network_keeps_of_its_layers(digits: Data) -> None:
    """At least what its layers give: for conv on 8x8 with widths 16 and 32, (4 x 4 x 16 + 2 x 2 x 32) values each way."""
    conv = Cohort([SMALL.derive(network="conv")], digits, CPU).bytes_per_lane
    wide = Cohort([SMALL.derive(network="conv", batch_size=2 * SMALL.batch_size)], digits, CPU).bytes_per_lane
    inputs = 64 * 4 * 12  # of an image
    assert wide - conv >= SMALL.batch_size * (inputs + 4 * 2 * (4 * 4 * 16 + 2 * 2 * 32))
