"""A winner is in the registry once, with an alias; a registry that fails is said in words."""

from pathlib import Path

import mlflow
import pytest

from harness.spec import Result, TrialSpec
from harness.tracking import MlflowTracker, ensure_store
from harness.tracking.registry import ALIAS, model_name, register


def test_a_winner_is_registered_once_and_the_next_one_takes_the_alias(mlflow_store: Path) -> None:
    ensure_store()
    client = mlflow.MlflowClient()
    run = client.create_run(client.create_experiment("a_study")).info.run_id
    entered = [register(client, "a_study", cell, f"runs:/{run}/{cell}", run, "words") for cell in ("one", "one", "two")]
    name = model_name("a_study")
    assert entered == [f"{name}, version 1", f"{name}, version 1", f"{name}, version 2"]
    assert client.get_model_version_by_alias(name, ALIAS).version == 2
    first = client.get_model_version(name, "1")
    assert (first.run_id, first.description) == (run, "words")


def test_a_registry_that_refuses_is_said_in_words(mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise mlflow.exceptions.MlflowException("no registry here\nwith details")

    ensure_store()
    client = mlflow.MlflowClient()
    monkeypatch.setattr(client, "search_registered_models", refuse)
    assert register(client, "a_study", "one", "models:/m-1", "run", "words") == "none: no registry here"


def test_the_study_has_the_means_of_its_arms_and_no_point_twice(mlflow_store: Path, tmp_path: Path) -> None:
    tracker, client = MlflowTracker("a_study", "default", "a note"), mlflow.MlflowClient()
    files = tmp_path / "files"
    files.mkdir()
    for seed, error in enumerate((30.0, 32.0)):
        spec = TrialSpec(dataset="digits", seed=seed)
        run = tracker.begin(spec, "bce b=1", seed, 1, {"dataset.digest": "digest"})
        tracker.finish(run, Result(spec, {"test/squared_error": error, "perf/train_s": 2.0}), files)
    for _ in range(2):
        tracker.finish_study(files, {}, "a note")
    metrics = client.get_run(tracker.parent).data.metrics
    assert (metrics["squared_error/bce b_1"], metrics["trials"], metrics["trained_s"]) == (31.0, 2, 4.0)
    assert len(client.get_metric_history(tracker.parent, "squared_error/bce b_1")) == 1
