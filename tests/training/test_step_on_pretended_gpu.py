"""The whole step on a pretended GPU: it stays on its device, copies nothing from the host and reads no value back.

That is what a CUDA graph needs (tests/helpers/pretended_gpu.py). Numbers, and strides that a real library picks, are not covered.
"""

import json
import subprocess
import sys

import pretended_gpu
import pytest
from tables import ACTIVATIONS, LIKELIHOODS, NETWORKS, OBJECTIVES, OPTIMIZERS

CASES = pretended_gpu.cases()
PLANTED = pretended_gpu.planted()
TABLES = {
    "likelihood": LIKELIHOODS,
    "activation": ACTIVATIONS,
    "objective": OBJECTIVES,
    "network": NETWORKS,
    "optimizer": OPTIMIZERS,
}


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    """Return the faults by case. One process looks at all of them, because its start takes as long as twenty cases."""
    program = [sys.executable, pretended_gpu.__file__]
    done = subprocess.run(program, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {line["case"]: line["faults"] for line in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_cuda_graph_can_capture_the_step(case: str, found: dict[str, list[str]]) -> None:
    assert found[case] == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault: str, found: dict[str, list[str]]) -> None:
    _, words = PLANTED[fault]
    assert any(words in line for line in found[fault]), found[fault]


@pytest.mark.parametrize("field", TABLES)
def test_every_entry_of_a_table_has_a_case(field: str) -> None:
    for lanes in pretended_gpu.LANES:
        tried = {getattr(specs[0], field) for specs in CASES.values() if len(specs) == lanes}
        assert tried >= set(TABLES[field])
