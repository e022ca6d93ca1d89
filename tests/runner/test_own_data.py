"""Studies of images of the user's own: a folder of pictures trains, and images that changed under the same code are said."""

import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow_runs import trial_runs
from pictures import noise, write_pictures
from rich.console import Console

from harness.runner.commands import run_study
from harness.runner.study_store import StudyStore
from harness.tracking import MlflowTracker, Record

PLAN = """'''Do images of one's own train?'''
from pathlib import Path

import numpy as np

from harness import Ablation, Budget, TrialSpec


def drawn():
    return np.load(Path(__file__).with_name("images.npy"))


STUDY = Ablation(
    base=TrialSpec(dataset="{dataset}", dataset_args={arguments}, network="mlp", hidden=(8,), batch_size=64),
    arms={{"a": {{}}}},
    budgets={{"default": Budget(epochs=1, seeds=range({seeds}))}},
)
"""


def study(file: Path, dataset: str, seeds: int = 1, arguments: str = "{}") -> str:
    """Run a study of a data set and return what it prints."""
    file.write_text(PLAN.format(dataset=dataset, arguments=arguments, seeds=seeds))
    screen = io.StringIO()
    assert run_study(str(file), "default", "cpu", 1, Console(file=screen, width=300), executor="local") == 0
    return screen.getvalue()


def test_runs_of_other_images_are_counted_and_told_with_both_digests() -> None:
    tags = {"a": {"dataset.digest": "a" * 64}, "b": {"dataset.digest": "b" * 64}, "c": {}}
    tracker = SimpleNamespace(results=lambda runs: {cell: Record(run, {}, tags[cell]) for cell, run in runs.items()})
    store = StudyStore("s", "default", tracker, "")  # type: ignore[arg-type]
    words = store.other_images({"a": "1", "b": "2", "c": "3"}, "a" * 64)
    assert words.startswith(
        "careful: 1 of 3 trials on record had other images, of the digest bbbbbbbbbbbb; today's have aaaaaaaaaaaa"
    )
    assert store.other_images({"a": "1", "c": "3"}, "a" * 64) == ""


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_store", "fixed_code")
def test_other_bytes_are_trained_anew_and_other_images_of_the_same_code_are_said(tmp_path: Path) -> None:
    file = tmp_path / "plan.py"
    write_pictures(tmp_path / "pets", noise(200, 12, 8))
    said = study(file, "images:pets/", arguments="{'resize': (6, 4)}")
    assert "resized to 6 x 4" in said
    assert "1 trial to run" in said
    (run,) = trial_runs(MlflowTracker("plan", "default", ""))
    assert re.fullmatch(r"images:pets@[0-9a-f]{12}", run.data.params["dataset"])
    assert run.data.params["dataset_args.resize"] == "[6, 4]"
    assert "nothing to do" in study(file, "images:pets/", arguments="{'resize': (6, 4)}")
    write_pictures(tmp_path / "pets", noise(1, 12, 8, seed=1))
    assert "1 trial to run" in study(file, "images:pets/", arguments="{'resize': (6, 4)}")

    np.save(tmp_path / "images.npy", noise(200, 6, 4))
    assert "careful" not in study(file, "plan.py:drawn")
    np.save(tmp_path / "images.npy", noise(200, 6, 4, seed=1))
    said = study(file, "plan.py:drawn", seeds=2)
    assert said.index("careful: 1 of 1 trials on record had other images") < said.index("1 trial to run")
