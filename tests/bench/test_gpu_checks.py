"""The checks for a GPU, taken on a CPU as far as they go: what they say when something is missed, and that they refuse a CPU."""

import io

import pytest
import torch
from rich.console import Console

from harness.bench import gpu
from harness.data import Data, load_dataset
from harness.errors import UserError
from harness.spec import TrialSpec
from harness.training import cohort as cohorts

CPU = torch.device("cpu")
SMALL = TrialSpec(dataset="digits", batch_size=32, epochs=1)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_dataset("digits")


@pytest.fixture
def report() -> gpu._Report:
    return gpu._Report(Console(file=io.StringIO(), width=200))


def test_a_cpu_is_refused() -> None:
    with pytest.raises(UserError, match="for a CUDA GPU, got 'cpu'"):
        gpu.check("cpu", Console(file=io.StringIO()))


@pytest.mark.slow
def test_parity_is_judged_per_arm(report: gpu._Report, digits: Data) -> None:
    specs = [SMALL.derive(activation=a) for a in ("elu", "relu")]
    gpu._parity(report, digits, CPU, [*specs, SMALL.derive(seed=1, learning_rate=1e9)])
    said = report.console.file.getvalue().splitlines()
    assert [line.startswith("ok") for line in said] == [True, True, False]
    assert "not finite" in said[2]
    assert len(report.missed) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("at_most", "ok"), [(1e9, True), (0.0, False)])
def test_times_are_held_against_goals(at_most: float, ok: bool, report: gpu._Report, digits: Data) -> None:
    gpu._time(report, digits, CPU, gpu.Goal("two", [SMALL, SMALL.derive(seed=1)], at_most), steps=32)
    assert report.console.file.getvalue().startswith("ok" if ok else "MISSED")
    assert cohorts._PROGRAMS
