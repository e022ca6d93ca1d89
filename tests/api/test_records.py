"""Trials on record as models and as a frame: the same numbers as in training."""

from pathlib import Path

import mlflow
import numpy as np
import own_file
import pandas as pd
import pytest
import torch
from drivers import Start

import harness
from harness.api import records
from harness.errors import DataError, UserError
from harness.models import vae
from harness.references import importing
from harness.study import Ablation, Budget
from harness.tracking import MlflowTracker

BASE = harness.TrialSpec(dataset="digits", network="mlp", hidden=(16,), batch_size=300)
STUDY = Ablation(
    base=BASE,
    arms={"bce": {}, "wide": {"hidden": (24,), "likelihood": "mse"}},
    budgets={"default": Budget(epochs=2, seeds=(1, 2), evaluation="validation")},
)


@pytest.fixture
def tracker(mlflow_store: Path, tmp_path: Path) -> MlflowTracker:
    """The tracker of a finished study."""
    tracker = MlflowTracker("a_study", "default", "")
    Start(STUDY, tracker).go(tmp_path)
    return tracker


def timeless(scores: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in scores.items() if not k.startswith("perf/")}


def test_a_trial_on_record_is_given_back(tracker: MlflowTracker) -> None:
    by_name = harness.load("a_study", arm="wide", seed=2)
    spec = BASE.derive(**STUDY.arms["wide"], seed=2, epochs=2, evaluation="validation")
    wanted = harness.train(spec, device="cpu", progress=False)
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(np.uint8)
    assert by_name.spec == wanted.spec
    assert timeless(dict(by_name.scores)) == pytest.approx(timeless(dict(wanted.scores)), rel=1e-4)
    assert set(by_name.scores) == set(wanted.scores)
    curves = [c for c in wanted.history if not c.startswith("perf/")]
    pd.testing.assert_frame_equal(by_name.history[curves], wanted.history[curves], rtol=1e-4)
    assert set(by_name.history) == set(wanted.history)
    torch.testing.assert_close(by_name.log_prob(x), wanted.log_prob(x), rtol=1e-3, atol=1e-2)

    frame = harness.frame("a_study")
    assert frame.equals(harness.frame("a_study@default"))
    assert frame.equals(harness.frame("a_study@default", "default"))
    assert list(frame["arm"]) == ["bce", "wide", "bce", "wide"]
    assert list(frame["seed"]) == [1, 1, 2, 2]
    assert list(frame["likelihood"]) == ["bce", "mse", "bce", "mse"]
    assert list(frame["hidden"]) == [(16,), (24,), (16,), (24,)]
    assert not {"latent", "dataset", "epochs"} & set(frame)
    row = frame.loc[3]
    assert row["validation/squared_error"] == by_name.scores["validation/squared_error"]
    assert torch.equal(harness.load(row["run"]).log_prob(x), by_name.log_prob(x))

    for arguments, words in [
        ({"name": "a_studdy", "arm": "bce"}, "unknown study on record 'a_studdy'; did you mean 'a_study'"),
        (
            {"name": "a_study", "arm": "bce", "budget": "full"},
            r"no trial of a_study \(full .*\non record: default \(a_study@default\)",
        ),
        ({"name": "a_study@full", "arm": "bce"}, r"no trial of a_study \(full budget\) is on record"),
        ({"name": "a_study@full", "arm": "bce", "budget": "default"}, "names the budget 'full', and budget='default' another"),
        ({"name": "a_study", "arm": "bec", "seed": 1}, r"unknown arm of a_study .* 'bec'; did you mean 'bce'\?\nknown: bce, wide"),
        ({"name": "a_study", "arm": "bce"}, "no finished trial of 'bce' has seed 0\non record: 1, 2"),
        ({"name": "a_study"}, r"nor the id of a run\n.*arm=\.\.\."),
        ({"name": "0" * 32}, "no run '0000"),
        ({"name": tracker.parent}, "is no finished trial: its kind is 'study'"),
    ]:
        with pytest.raises(UserError, match=words):
            harness.load(**arguments)

    folder = Path(mlflow.artifacts.download_artifacts(mlflow.get_run(row["run"]).info.artifact_uri))
    (folder / "state_dict.pt").unlink()
    with pytest.raises(UserError, match=r"wide / seed 2\) keeps no state_dict.pt: .*\nfile was deleted; it has .*spec.json"):
        harness.load(row["run"])


def gone(*given: object) -> None:
    raise DataError("the data set is gone")


def test_a_trial_whose_data_are_gone_has_the_shape_of_its_pictures(tracker: MlflowTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    there = harness.load("a_study", arm="bce", seed=1)
    run = harness.frame("a_study")["run"][0]
    folder = Path(mlflow.artifacts.download_artifacts(mlflow.get_run(run).info.artifact_uri))
    monkeypatch.setattr(records, "load_dataset", gone)
    with pytest.raises(DataError, match="the data set is gone"):  # of a trial that never saw the test set, which has no pictures
        harness.load(run)
    for shape in ((1, 8, 8), (64,), (8, 8)):  # the latter two as earlier versions kept them
        np.savez_compressed(folder / "pictures.npz", original=np.zeros((5, *shape), np.uint8))
        found = harness.load(run)
        assert found.image_shape == there.image_shape == (1, 8, 8)
        assert torch.equal(found.decode(torch.ones(1, 2)), there.decode(torch.ones(1, 2)))


def test_without_a_store_nothing_is_made(home: Path) -> None:
    with pytest.raises(UserError, match=r"no study is on record in .*\nharness study loss_ablation trains it"):
        harness.frame("loss_ablation")
    with pytest.raises(UserError, match="no run 'ffff"):
        harness.load("f" * 32)
    assert not (home / "mlruns").exists()


@pytest.mark.slow
def test_a_model_has_the_scores_of_a_study_with_the_test_set(
    mlflow_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Ablation(base=harness.TrialSpec(dataset="digits"), arms={"a": {}}, budgets={"default": Budget(epochs=1, seeds=(0,))})
    Start(study, MlflowTracker("a_study", "default", "")).go(tmp_path)
    model = harness.train(harness.TrialSpec(dataset="digits", epochs=1), device="cpu", progress=False)
    (row,) = harness.frame("a_study").to_dict("records")
    on_record = timeless({key: value for key, value in row.items() if "/" in key})
    assert on_record == pytest.approx(timeless(dict(model.scores)), rel=1e-3, abs=1e-6, nan_ok=True)
    monkeypatch.setattr(records, "load_dataset", gone)
    again = harness.load("a_study", arm="a")
    assert (len(again.history), again.image_shape) == (1, (1, 8, 8))


def test_a_model_of_the_users_own_code_is_given_back_with_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = own_file.spec_of(tmp_path / "gone")
    model = harness.train(spec, device="cpu", progress=False)
    model.save(tmp_path / "kept")
    with monkeypatch.context() as patch:  # as in another process, which knows nothing of the code
        patch.setattr(importing, "_SOURCES", {})
        patch.setattr(importing, "_OBJECTS", {})
        vae._likelihood.cache_clear()
        again = harness.load(tmp_path / "kept")
    z = torch.ones(1, 2)
    assert again.spec == spec
    assert torch.equal(again.decode(z), model.decode(z))
    assert again.scores["test/contrast"] == model.scores["test/contrast"]
