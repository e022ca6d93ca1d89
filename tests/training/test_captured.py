"""Steps that a GPU captures, and compilers that fail, by a capture that is played on a CPU."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from steps import CPU, NARROW, TERMS, assert_same, trained
from tables import LIKELIHOODS

from harness import devices
from harness.data import Data, load_dataset
from harness.training import cohort as cohorts
from harness.training import step
from harness.training.cohort import Cohort

Launch = Callable[[], None]


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The CPU captures steps as a GPU does: one step is taken first, later launches take as many as were captured. Their sizes."""
    taken: list[int] = []

    def capture(take: Launch, times: int, device: torch.device, pool: object) -> Launch:
        taken.append(times)
        take()
        return lambda: [take() for _ in range(times)] and None

    monkeypatch.setattr(devices, "can_capture", lambda device: True)
    monkeypatch.setattr(devices, "capture", capture)
    monkeypatch.setattr(devices, "memory_pool", lambda: None)
    monkeypatch.setattr(cohorts, "_PROGRAMS", {})
    return taken


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_captured_steps_are_the_steps(likelihood: str, captures: list[int], digits: Data) -> None:
    assert_same([NARROW.derive(likelihood=likelihood)], digits, "graph")
    assert captures == [32, 1]  # a chunk as one launch, and single steps for what is left of an epoch


def test_lanes_keep_their_own_failures_though_values_are_read_at_the_end_of_an_epoch(captures: list[int], digits: Data) -> None:
    calm, mad = NARROW.derive(likelihood="mse"), NARROW.derive(likelihood="mse", seed=1, learning_rate=1e6)
    cohort, rows = trained([mad, calm], digits, execution="graph")
    assert set(cohort.failures) == {mad.id}
    _, own = trained([calm], digits, execution="graph")
    for ours, theirs in zip(rows, own, strict=True):
        assert [ours[calm.id][t] for t in TERMS] == pytest.approx([theirs[calm.id][t] for t in TERMS], rel=1e-3)


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        (lambda take, times: lambda: None, "a launch of 32 captured steps took 0 and left all weights as they were"),
        (lambda take, times: take, "a launch of 32 captured steps took 1: "),
    ],
    ids=["nothing", "too few"],
)
def test_a_capture_that_recorded_something_else_is_found(
    launch: Callable[[Launch, int], Launch], words: str, captures: list[int], digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "capture", lambda take, times, device, pool: launch(take, times))
    with pytest.raises(devices.CaptureError, match=words):
        Cohort([NARROW], digits, CPU, "graph").run_epoch()


def test_a_capture_that_moves_on_but_changes_no_weight_is_found(
    captures: list[int], digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = Cohort([NARROW], digits, CPU, "graph")

    def capture(take: Launch, times: int, device: torch.device, pool: object) -> Launch:
        def launch() -> None:
            before = copy.deepcopy([p.detach() for p in cohort.params])
            for _ in range(times):
                take()
            with torch.no_grad():
                for p, old in zip(cohort.params, before, strict=True):
                    p.copy_(old)

        return launch

    monkeypatch.setattr(devices, "capture", capture)
    with pytest.raises(devices.CaptureError, match="took 32 and left all weights as they were"):
        cohort.run_epoch()


def test_a_compiled_program_starts_with_its_lanes_filled_up_to_a_bucket(
    captures: list[int], digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "compile_graph", lambda graph, tensors: graph)
    specs = [NARROW.derive(seed=s) for s in range(3)]
    cohort, rows = trained(specs, digits, execution="compiled")
    assert (len(cohort.specs), len(cohort.lanes), list(rows[0])) == (3, 4, [s.id for s in specs])
    plain, own = trained(specs, digits)
    for spec in specs:
        assert [rows[1][spec.id][t] for t in TERMS] == pytest.approx([own[1][spec.id][t] for t in TERMS], rel=1e-3)
    again = Cohort(specs, digits, CPU, "compiled")
    again.restore([cohort.training_state().snapshot(s) for s in specs])
    for spec in specs:
        for a, b in zip(again.trained(spec).parameters(), cohort.trained(spec).parameters(), strict=True):
            assert torch.equal(a, b)
    with torch.no_grad():
        for p in again.params:
            assert torch.equal(p[3], p[2])  # the lane that fills up goes on as the last trial does
            p[3] = math.nan
    assert set(again.run_epoch()) == {s.id for s in specs}  # whatever becomes of it, no trial fails
    assert not again.failures
    assert len(cohorts._PROGRAMS) == 1
    assert plain.lanes == plain.specs  # operation by operation, no lane is in vain


@pytest.mark.parametrize("execution", ["graph", "compiled"])
def test_a_program_is_made_once_for_all_cohorts_of_its_shapes(
    execution: step.Execution, captures: list[int], digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[int] = []
    monkeypatch.setattr(step, "compile_graph", lambda graph, tensors: compiled.append(len(tensors)) or graph)
    for seed in range(3):
        trained([NARROW.derive(seed=seed)], digits, execution=execution)
    assert len(compiled) == (execution == "compiled")


def test_a_compiler_that_fails_leaves_the_steps_as_they_were_traced(
    captures: list[int], digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: object, tensors: object) -> None:
        raise RuntimeError("fatal error: Python.h: No such file or directory\ncompilation terminated.")

    monkeypatch.setattr(step, "compile_graph", broken)
    cohort, rows = trained([NARROW], digits, execution="compiled")
    assert cohort.compiler_fault == "RuntimeError: fatal error: Python.h: No such file or directory"
    assert not cohort.compiled
    _, own = trained([NARROW], digits, execution="graph")
    assert [rows[1][NARROW.id][t] for t in TERMS] == [own[1][NARROW.id][t] for t in TERMS]


def test_code_that_fails_when_it_is_first_called_falls_back_too(
    captures: list[int], digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: Callable[..., object], tensors: object) -> Callable[..., object]:
        def call(*tensors: torch.Tensor) -> None:
            graph(*tensors)
            raise OSError("ptxas not found")

        return call

    monkeypatch.setattr(step, "compile_graph", broken)
    cohort, rows = trained([NARROW], digits, execution="compiled")
    assert cohort.compiler_fault == "OSError: ptxas not found"
    assert math.isfinite(rows[1][NARROW.id]["elbo/train"])


@pytest.mark.parametrize(
    "fault", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: an illegal memory access")]
)
def test_a_fault_of_the_device_is_none_of_the_compiler(
    fault: Exception, captures: list[int], digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: object, tensors: object) -> None:
        raise fault

    monkeypatch.setattr(step, "compile_graph", broken)
    with pytest.raises(type(fault), match=str(fault)):
        Cohort([NARROW], digits, CPU, "compiled").run_epoch()


@pytest.mark.slow
def test_torch_compiles_a_program_once_and_its_front_end_not_at_all(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is made with plain tensors and called with parameters; a front end with guards would compile it again."""
    if devices.compiler(CPU) is None:
        pytest.skip("no C++ compiler here")
    from torch import _inductor as inductor
    from torch._dynamo.utils import counters

    monkeypatch.setattr(cohorts, "_PROGRAMS", {})
    counters.clear()
    calls: list[int] = []
    real = inductor.compile
    monkeypatch.setattr(inductor, "compile", lambda *args, **options: calls.append(1) or real(*args, **options))
    cohort = Cohort([NARROW.derive(fit_on="train+validation")], digits, CPU, "compiled")
    cohort.run_epoch()
    cohort.run_epoch()
    assert all(isinstance(p, torch.nn.Parameter) for p in cohort.params)
    assert (len(calls), sum(counters["frames"].values())) == (1, 0)
