"""A worker trains on the images that the study has, or not at all."""

from pathlib import Path

import numpy as np
import pytest
from pictures import noise

import harness
from harness import executors
from harness.data import load_dataset
from harness.executors import Failed, Finished, Job, OutputDirs
from harness.executors.evaluation import dataset
from harness.spec import TrialSpec
from harness.training.checkpoints import Checkpoints

FUNCTION = """import numpy as np


def drawn():
    return np.load({path!r})
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialSpec:
    """A trial of a function that reads a file."""
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", noise(200, 4, 4))
    Path("drawn_images.py").write_text(FUNCTION.format(path=str(tmp_path / "images.npy")))
    dataset.cache_clear()
    return TrialSpec(dataset="drawn_images.py:drawn", network="mlp", hidden=(4,), epochs=1, batch_size=100, evaluation="validation")


def last(spec: TrialSpec, images: str, dirs: OutputDirs) -> executors.Event:
    *_, end = executors.train(Job((spec,), images=images), "cpu", dirs.scratch, Checkpoints(dirs.checkpoints))
    return end


def test_images_that_changed_since_the_study_began_are_not_trained_on(spec: TrialSpec, dirs: OutputDirs) -> None:
    images = load_dataset(spec.dataset, pytest.fail).digest
    np.save("images.npy", noise(200, 4, 4, seed=1))
    end = last(spec, images, dirs)
    assert isinstance(end, Failed)
    assert f"drawn: the study has images of the digest {images[:12]}, this worker " in end.why
    assert end.data
    assert not end.final  # the images may come back
    np.save("images.npy", noise(200, 4, 4))
    assert isinstance(last(spec, images, dirs), Finished)  # though this process has the others


def test_files_that_are_gone_may_come_back(dirs: OutputDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("faces.npz", images=noise(200, 4, 4))
    spec = TrialSpec(dataset="npz:faces.npz", network="mlp", hidden=(4,), epochs=1, batch_size=100, evaluation="validation")
    Path("faces.npz").rename("away.npz")
    end = last(spec, "", dirs)
    assert isinstance(end, Failed)
    assert "npz:faces.npz" in end.why
    assert end.data
    assert not end.final


def test_so_may_those_that_a_function_reads(spec: TrialSpec, dirs: OutputDirs) -> None:
    Path("images.npy").unlink()
    end = last(spec, "", dirs)
    assert isinstance(end, Failed)
    assert "FileNotFoundError" in end.why
    assert end.data
    assert not end.final


def test_a_session_trains_on_the_images_of_now(spec: TrialSpec) -> None:
    before = harness.train(spec, device="cpu", progress=False)
    np.save("images.npy", noise(200, 4, 4, seed=1) // 2)
    after = harness.train(spec, device="cpu", progress=False)
    assert after.scores["validation/squared_error"] != before.scores["validation/squared_error"]
