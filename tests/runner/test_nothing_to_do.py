"""A start that finds nothing left to train says which trials failed for good, and why."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from harness.runner.commands import run_study

pytestmark = pytest.mark.usefixtures("unpainted")

PLAN = """'''Does nothing go unsaid?'''
from harness import Ablation, Budget, TrialSpec

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=600),
    arms={"bce": {}, "mad": {"likelihood": "gaussian_per_pixel", "learning_rate": 1e6}},
    budgets={"default": Budget(epochs=1, seeds=range(1))},
)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_store", "fixed_code")
def test_trials_that_failed_for_good_are_named_with_their_reasons(tmp_path: Path) -> None:
    file = tmp_path / "plan.py"
    file.write_text(PLAN)

    def start() -> str:
        screen = io.StringIO()
        assert run_study(str(file), "default", "cpu", 1, Console(file=screen, width=300), executor="local") == 1
        return screen.getvalue()

    assert "nothing to do" not in start()
    first, second = start().partition("nothing to do")[2].splitlines()[:2]
    assert first == ": all trials are done but 1 that failed for good; with changed code its arms are tried again"
    assert second.startswith("  mad / seed 0: not finite after epoch 1: ")
