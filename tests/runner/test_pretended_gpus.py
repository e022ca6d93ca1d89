"""`harness study --device cuda` on 1 and 4 GPUs that are the CPU in truth: the same trials once, each worker on its own."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness import paths

TESTS = Path(__file__).parents[1]
STUDY = '''"""Is it so?"""
from harness.spec import TrialSpec
from harness.study import Ablation, Budget

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(32,), batch_size=256),
    arms={"bce": {}, "per_pixel": {"likelihood": "gaussian_per_pixel"}},
    budgets={"default": Budget(epochs=3, seeds=range(2))},
    objective=None,
)
'''
PROGRAM = """
import pathlib, sys
from harness import cli, paths, resources
resources.CPU_BUILD = "none"  # torch's version says that it knows no GPU
folder = pathlib.Path(sys.argv.pop(1))
paths.studies = lambda: folder
sys.exit(cli.main())
"""


class Machine:
    """A home folder on a machine with so many GPUs."""

    def __init__(self, home: Path, gpus: int, template: Path) -> None:
        self.home = home
        (home / "mlruns").mkdir(parents=True)
        shutil.copy(template, home / "mlruns" / "mlflow.db")
        self.log, self.fault = home / "devices.log", home / "fault"
        (home / "pretended.py").write_text(STUDY)
        self.environment = os.environ | {
            "HARNESS_HOME": str(home),
            "PRETENDED_GPUS": str(gpus),
            "PRETENDED_LOG": str(self.log),
            "PRETENDED_FAULT": str(self.fault),
            "PYTHONPATH": os.pathsep.join([str(TESTS / "helpers" / "pretended"), str(paths.PROJECT)]),
        }

    def study(self, *options: str) -> str:
        """What the command says; it must succeed."""
        command = [sys.executable, "-c", PROGRAM, str(self.home), "study", "pretended", "--device", "cuda", *options]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def used(self) -> dict[str, set[str]]:
        """The processes that trained on each device."""
        found: dict[str, set[str]] = {}
        for line in self.log.read_text().splitlines():
            process, device = line.split()
            found.setdefault(device, set()).add(process)
        return found

    def results(self) -> dict[tuple[str, int], float]:
        """The common bits of every arm and seed in the report's file of trials."""
        (page,) = self.home.glob("mlruns/reports/**/trials.csv")
        import pandas as pd

        frame = pd.read_csv(page)
        assert max(Counter(zip(frame["arm"], frame["seed"], strict=True)).values()) == 1
        return {(row["arm"], int(row["seed"])): row["test/common_bits"] for _, row in frame.iterrows()}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> tuple[Machine, str]:
    """The study on one GPU, and what was said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_DATA", os.environ.get("HARNESS_DATA") or str(paths.PROJECT / "data"))
        machine = Machine(tmp_path_factory.mktemp("one") / "home", 1, mlflow_template)
        return machine, machine.study()


@pytest.mark.slow
def test_one_gpu_has_one_worker_and_two_programs(one: tuple[Machine, str]) -> None:
    machine, said = one
    assert "4 trials to run on a pretended GPU: 2 programs, 1 at a time, of up to 2 trials" in said
    assert {device: len(processes) for device, processes in machine.used().items()} == {"cuda:0": 1}
    assert len(machine.results()) == 4
    assert "nothing to do" in machine.study()


@pytest.mark.slow
def test_four_gpus_one_of_which_fails_in_the_middle_train_the_same_trials_once(
    one: tuple[Machine, str], tmp_path: Path, mlflow_template: Path
) -> None:
    machine = Machine(tmp_path / "home", 4, mlflow_template)
    machine.fault.write_text("AcceleratorError\nCUDA error: an illegal memory access was encountered")
    said = machine.study()
    assert "4 at a time" in said
    assert re.search("will try again: cuda:[0-3] has failed: AcceleratorError: CUDA error: an illegal memory access", said)
    assert not machine.fault.exists()
    used = machine.used()
    assert used.keys() == {f"cuda:{i}" for i in range(4)}
    # The failed GPU's new worker may find that another has taken the last trial by the time it is up.
    assert sorted(len(processes) for processes in used.values()) in ([1, 1, 1, 1], [1, 1, 1, 2])
    assert machine.results() == pytest.approx(one[0].results(), rel=1e-3)


@pytest.mark.slow
def test_workers_that_share_a_gpu_which_is_too_small_for_a_program(
    one: tuple[Machine, str], tmp_path: Path, mlflow_template: Path
) -> None:
    machine = Machine(tmp_path / "home", 1, mlflow_template)
    machine.fault.write_text("OutOfMemoryError\nCUDA out of memory.")
    said = machine.study("--workers-per-gpu", "2")
    assert "2 at a time" in said
    assert "out of memory with one trial alone" in said  # one trial a program: it is tried again
    assert {device: len(processes) for device, processes in machine.used().items()} == {"cuda:0": 2}
    assert machine.results() == pytest.approx(one[0].results(), rel=1e-3)
