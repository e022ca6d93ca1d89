"""Images that are too few, or without classes, for some scores: that is said before training, and the rest is scored."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

import harness
from harness.errors import UserError
from harness.runner.commands import run_study
from harness.scores import SCORES

OF_FEATURES = {"test/frechet", "test/precision", "test/recall"}
OF_CLASSES = {"test/knn15_accuracy", "test/probe_accuracy"}
FILE = '''"""Does width matter?"""
import numpy as np
from harness import Ablation, Budget, Hypothesis, Score, Search, TrialSpec
from harness.study import Real, SearchBudget

def of(train, labels):
    images = np.random.default_rng(0).integers(256, size=(train + 40, 8, 7), dtype=np.uint8)
    index = np.arange(len(images))
    splits = {"train": index[:train], "validation": index[train : train + 20], "test": index[train + 20 :]}
    return {"images": images, "labels": labels(index), **splits}

def few(): return of(100, lambda index: index % 3)
def tiny(): return of(12, lambda index: index % 3)
def unlabelled(): return of(300, lambda index: None)
def one_class(): return of(300, lambda index: index * 0)
def ids(): return of(1_100, lambda index: index)

def purity(trained): return {"validation/purity": 1.0}
PURITY = Score(key="validation/purity", label="purity", better="higher", needs=("labels",), compute=purity)

BASE = TrialSpec(dataset=DATA, network="mlp", hidden=(8,), latent=2, epochs=1)
'''
ABLATION = """
STUDY = Ablation(
    base=BASE,
    arms={"narrow": {}, "wide": {"hidden": (16,)}},
    budgets={"default": Budget(epochs=1, seeds=range(1))},
    hypotheses=(Hypothesis(better="wide", worse="narrow", metric=METRIC),),
)
"""
SEARCH = """
STUDY = Search(
    base=BASE,
    space={"learning_rate": Real(1e-4, 1e-2, log=True)},
    objectives=("validation/purity",),
    metrics=("study_file.py:PURITY",),
    budgets={"default": SearchBudget(trials=2, epochs=1)},
)
"""


def write(folder: Path, data: str, metric: str = "test/squared_error", study: str = ABLATION) -> Path:
    """A study of the file's own images and what is claimed on them."""
    source = (FILE + study).replace("METRIC", repr(metric)).replace("DATA", repr(f"study_file.py:{data}"))
    path = folder / "study_file.py"
    path.write_text(source, encoding="utf-8")
    return path


def run(path: Path) -> str:
    """Run the study and return what it prints."""
    screen = io.StringIO()
    assert run_study(str(path), "default", "cpu", 1, Console(file=screen, width=300), executor="local") == 0
    return screen.getvalue()


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_store")
def test_a_hundred_images_end_in_scores_and_what_is_left_out_is_said_before_training(tmp_path: Path) -> None:
    said = run(write(tmp_path, "few"))
    features = "left out: Fréchet distance, precision, recall, which take at least 128 training and 65 test images (got 100 and 20)"
    assert features in said
    assert "the common head counts 16,384 cells on 5,600 training values" in said
    assert said.index(features) < said.index("trials to run")
    assert said.count("left out:") == 1  # once, and nothing else
    assert "training the feature" not in said
    assert "15-NN accuracy" in said


@pytest.mark.parametrize(
    ("data", "metric", "why"),
    [
        ("few", "test/frechet", r"takes at least 128 training and 65 test images \(got 100 and 20\)"),
        ("tiny", "test/knn15_accuracy", r"takes at least 15 training images \(got 12\)"),
        ("unlabelled", "test/probe_accuracy", r"takes labels of 2 to 1,000 classes \(got no labels\)"),
        ("one_class", "test/knn15_accuracy", r"takes labels of 2 to 1,000 classes \(got one class\)"),
        ("ids", "test/probe_accuracy", r"takes labels of 2 to 1,000 classes \(got 1,100\)"),
    ],
)
def test_a_claim_by_a_score_that_the_images_do_not_give_is_refused(tmp_path: Path, data: str, metric: str, why: str) -> None:
    claim = f"hypothesis 'wide beats narrow on {SCORES[metric].label}': '{metric}' {why}\nname another score"
    with pytest.raises(UserError, match=claim):
        run(write(tmp_path, data, metric))


def test_a_search_by_a_score_of_classes_is_refused_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"objective 'validation/purity': 'validation/purity' takes labels of .* \(got no labels\)"):
        run(write(tmp_path, "unlabelled", study=SEARCH))


def scores(path: Path, data: str) -> set[str]:
    """The keys of what a trial of this study's base is scored with."""
    spec = harness.TrialSpec(dataset=f"{path}:{data}", network="mlp", hidden=(8,), latent=2, epochs=1, batch_size=64)
    return harness.train(spec, device="cpu").scores.keys()


@pytest.mark.parametrize(
    ("data", "missing"),
    [("few", OF_FEATURES), ("tiny", OF_FEATURES | {"test/knn15_accuracy"}), ("one_class", OF_FEATURES | OF_CLASSES)],
)
def test_a_lone_model_is_told_and_has_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str, missing: set[str]
) -> None:
    found = scores(write(tmp_path, data), data)
    every = {key for key, row in SCORES.items() if row.images == "test" and set(row.needs) <= {"labels", "features", "neighbours"}}
    assert every - found == missing
    said = capsys.readouterr().err
    labels = {label for line in re.findall("left out: (.*), which", said) for label in line.split(", ")}
    assert labels == {SCORES[key].label for key in missing}


@pytest.mark.slow
def test_images_without_labels_have_distances_on_an_autoencoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    path = write(tmp_path, "unlabelled")
    path.write_text(path.read_text().replace("train + 40, 8", "train + 160, 8"), encoding="utf-8")
    assert scores(path, "unlabelled") >= OF_FEATURES
    assert "left out: 15-NN accuracy, linear probe accuracy" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "data" / "features").glob("*.pt")] != []
