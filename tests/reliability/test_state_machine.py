"""A few steps of the state machine over a study's stores; `make fuzz` takes as many as one likes."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from state_machine import COUNTS, Studies

STEPS = 10
SETTINGS = settings(
    max_examples=1,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)


@pytest.mark.slow
def test_whatever_is_done_to_a_study_nothing_is_lost_and_each_cell_counts_once() -> None:
    run_state_machine_as_test(Studies, settings=SETTINGS)
    assert COUNTS["steps"] >= STEPS
