"""The kernels that Inductor makes of a step for an H100, against those on record (tests/helpers/h100_kernels.py)."""

import json
import subprocess
import sys

import h100_kernels
import pytest

from harness.bench import counts

PROGRAM = """
async_compile.triton('triton_poi_fused_add_0', 'def triton_poi_fused_add_0(x): other.run(x)')

class Runner:
    def call(self, args):
        triton_poi_fused_add_0.run(arg0_1, buf0, 128, stream=stream0)
        extern_kernels.bmm(reinterpret_tensor(buf0, (4, 2), (2, 1), 0), arg1_1, out=buf1)
        triton_poi_fused_add_0.run(buf1, buf0, 128, stream=stream0)
        buf2 = torch.ops.aten.sort.stable(buf1)
        arg0_1.copy_(buf0)
"""


@pytest.fixture(scope="module")
def counted() -> counts.Counts:
    """Return the counts by case, which a process of its own makes of this torch."""
    if reason := h100_kernels.obstacle():
        pytest.skip(reason)
    program = [sys.executable, h100_kernels.__file__]
    done = subprocess.run(program, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {line["case"]: line["counts"] for line in map(json.loads, done.stdout.splitlines())}


@pytest.fixture
def recorded() -> counts.Counts:
    """Return the counts on record of this torch."""
    found = counts.on_record(h100_kernels.file())
    if h100_kernels.key() not in found:
        pytest.skip(f"{h100_kernels.file().name} has no entry for {h100_kernels.key()}, only for {', '.join(found)}")
    return found[h100_kernels.key()]


@pytest.mark.slow
@pytest.mark.parametrize("case", h100_kernels.cases())
def test_the_kernels_of_a_step_are_those_on_record(case: str, recorded: counts.Counts, counted: counts.Counts) -> None:
    changes = counts.changes({case: counted[case]}, {case: recorded.get(case, {})})
    assert changes == [], "if meant: python tests/helpers/h100_kernels.py --refresh"


@pytest.mark.slow
def test_one_more_kernel_in_the_step_is_found(recorded: counts.Counts, counted: counts.Counts) -> None:
    before = recorded["bce, 1 lane"]
    assert counts.changes({"bce": counted[h100_kernels.PLANTED]}, {"bce": before})


def test_the_record_has_the_cases_that_are_counted_and_no_other() -> None:
    record = counts.on_record(h100_kernels.file())
    assert record
    for version, found in record.items():
        assert set(found) == set(h100_kernels.cases()), version


def test_launches_are_counted_in_the_program_and_not_in_the_sources_of_its_kernels() -> None:
    expected = {"triton": 2, "extern_kernels.bmm": 1, "torch.ops.aten.sort.stable": 1, "copy_": 1}
    assert h100_kernels.kernels(PROGRAM) == expected
