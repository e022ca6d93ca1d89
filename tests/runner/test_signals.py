"""SIGTERM and SIGINT at any moment end a driver in time and in good order, and nothing is lost or done twice."""

import importlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness import paths, report
from harness.runner import commands
from harness.runner.signals import CODES, Stopped, Stops
from harness.tracking import MlflowTracker

pytestmark = pytest.mark.usefixtures("unpainted")

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_three_of_each_signal_at_random_moments() -> None:
    program = [sys.executable, str(TESTS / "helpers" / "signals.py"), "--each", "3", "--seed", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, cwd=TESTS, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 x SIGTERM and SIGINT, seed 0: nothing wrong" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_a_module_is_imported_takes_effect_after_it(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_a_class.py").write_text(CLASS.format(number=number))
    monkeypatch.syspath_prepend(tmp_path)
    stops = Stops()

    def import_and_wait() -> None:
        with stops.listening(), stops.allowed():
            importlib.import_module("of_a_class")
            time.sleep(60)

    with pytest.raises(Stopped) as stopped:
        import_and_wait()
    assert sys.modules.pop("of_a_class").made
    assert stopped.value.code == CODES[signal.Signals(number)]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


CLASS = """
import signal

class Named:
    def __set_name__(self, owner, name):
        signal.raise_signal({number})

class Owner:
    named = Named()

made = True
"""
STUDY = '''"""Is it so?"""
from harness.spec import TrialSpec
from harness.study import Ablation, Budget

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=600),
    arms={"bce": {}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=1, seeds=range(1))},
)
'''


class Killed(BaseException):
    """The process ends here; nothing catches it."""


class Impatient(Console):
    """Asks this process to stop as soon as the report is announced."""

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*objects, **how)
        if "writing the report" in objects:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_a_report_that_was_stopped_or_killed_is_written_again(
    tmp_path: Path, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.py").write_text(STUDY)
    monkeypatch.setattr(paths, "studies", lambda: tmp_path)

    def start(kind: type[Console] = Console) -> tuple[int, str]:
        said = io.StringIO()
        code = commands.run_study("small", "default", "cpu", 1, kind(file=said, width=200), executor="local")
        return code, said.getvalue()

    def parent() -> str:
        tracker = MlflowTracker("small", "default", "")
        return tracker.look(tracker.parent)[0]

    def kill(*_: object) -> None:
        raise Killed

    code, said = start(Impatient)
    assert (code, parent()) == (143, "KILLED")
    assert "the same command goes on where it left off" in said
    with monkeypatch.context() as patch:
        patch.setattr(MlflowTracker, "finish_study", kill)
        with pytest.raises(Killed):
            start()
    assert parent() != "FINISHED"
    assert (report.folder("small", "default") / "report.html").exists()
    code, said = start()
    assert (code, parent()) == (0, "FINISHED")
    assert "nothing to do" in said
    assert "writing the report" in said
    assert "writing the report" not in start()[1]
