"""A command loads what it needs: with nothing to train, no torch; and workers start only if there is something to train."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import executors, study
from harness.executors import Spares
from harness.metrics import features as metrics_features
from harness.runner import preparation
from harness.runner.room import Room

PLAN = """'''Is nothing loaded twice?'''
from harness import Ablation, Budget, TrialSpec

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=600),
    arms={"bce": {}},
    budgets={"default": Budget(epochs=1, seeds=range(2))},
)
"""
HEAVY = ["torch", "matplotlib", "sklearn", "scipy.stats", "scipy.optimize"]
LOADED = f"""
import json, sys
import harness.doctor, harness.report, harness.runner.commands, harness.runner.outcome
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""
ESTIMATED = """
import json, sys
from harness.data import load_dataset
from harness.spec import TrialSpec
from harness.training.footprint import largest
specs = [TrialSpec(dataset="digits", network=network, activation="elu") for network in ("mlp", "conv", "resnet")]
assert largest(specs, load_dataset("digits")).bytes
print(json.dumps([name for name in ["torch._dynamo", "sympy", "sklearn", "scipy.stats"] if name in sys.modules]))
"""
COMMAND = f"""
import json, sys
from harness import cli
from harness.executors import Spares

started, start = [], Spares.start
Spares.start = lambda spares, count: started.append(count) or start(spares, count)
if __name__ == "__main__":
    assert cli.main(sys.argv[1:]) == 0
    print(json.dumps([started, [name for name in {HEAVY} if name in sys.modules]]))
"""


def last_line(*command: str) -> list:
    said = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True).stdout
    return json.loads(said.splitlines()[-1])


def test_the_rooms_of_a_driver_load_no_torch() -> None:
    assert last_line("-c", LOADED) == []


def test_reading_data_and_estimating_memory_load_neither_scikit_learn_nor_torch_s_compiler() -> None:
    """Each import takes as long as torch's own; `elu` on the device `meta` brought the latter."""
    assert last_line("-c", ESTIMATED) == []


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_store")
def test_a_start_with_nothing_to_train_loads_no_torch_and_starts_no_worker(tmp_path: Path) -> None:
    (tmp_path / "plan.py").write_text(PLAN)
    (tmp_path / "command.py").write_text(COMMAND)

    def go(command: str, *more: str) -> list:
        return last_line(str(tmp_path / "command.py"), command, str(tmp_path / "plan.py"), *more)

    started, loaded = go("study", "--workers", "1", "--device", "cpu")
    assert started == [1]
    assert "torch" in loaded
    assert go("study", "--workers", "1", "--device", "cpu") == [[], []]
    assert go("report") == [[], []]


def test_spares_are_taken_in_turn_and_those_that_died_are_not() -> None:
    spares = Spares()
    spares.start(3)
    dead, taken, left = (spare.process for spare in spares.waiting)
    dead.kill()
    dead.join()
    assert spares.take("cpu").process is taken
    spares.close()
    assert left.exitcode is not None
    assert taken.exitcode is None
    taken.kill()
    taken.join()


@pytest.mark.usefixtures("home")
def test_what_was_said_of_data_is_noted_while_files_code_and_trials_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.py").write_text(PLAN)
    features = tmp_path / "data" / "features"
    features.mkdir(parents=True)
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    net = SimpleNamespace(digest="0123", name="0123", in_words="a classifier")
    monkeypatch.setattr(metrics_features, "feature_net", lambda data, say, doing: net)
    loaded, said = study.load(str(tmp_path / "plan.py")), list[str]()
    assert preparation.noted(loaded, "default") is None
    briefing, data, where = preparation.gather(loaded, "default", said.append, Room("cpu", 1, 1, "local", 2))
    assert not (tmp_path / "home").exists()  # a start that is refused after this leaves nothing
    preparation.keep(briefing, where)
    assert preparation.noted(loaded, "default") == briefing
    assert briefing.digest == data.digest
    assert list(briefing.lines) == said
    (note,) = (tmp_path / "home" / "mlruns" / "checked").iterdir()
    whole = note.read_bytes()
    note.write_bytes(whole[:20])  # as a full disk or a power cut leaves it
    assert preparation.noted(loaded, "default") is None
    note.write_bytes(whole)
    (features / "another.pt").write_bytes(b"")
    assert preparation.noted(loaded, "default") is None
    (features / "another.pt").unlink()
    (tmp_path / "plan.py").write_text(PLAN.replace("epochs=1", "epochs=2"))
    assert preparation.noted(study.load(str(tmp_path / "plan.py")), "default") is None
    monkeypatch.setattr(preparation.provenance, "code", lambda: "changed")
    assert preparation.noted(loaded, "default") is None


@pytest.mark.usefixtures("home")
def test_data_of_the_user_s_own_are_loaded_by_every_start(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\ndef images():\n    return {'images': np.arange(600 * 16, dtype=np.uint8).reshape(600, 4, 4) % 251}\n"
    )
    (tmp_path / "plan.py").write_text(PLAN.replace('"digits"', '"mine.py:images"'))
    loaded = study.load(str(tmp_path / "plan.py"))
    assert preparation._note(loaded, "default") is None


def test_a_name_that_this_room_lacks_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        _ = executors.Nobody
