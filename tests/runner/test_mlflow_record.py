"""What MLflow holds of a study, from the begin of a run to the report."""

from collections import Counter
from pathlib import Path

import mlflow
import pytest
from drivers import ORIGIN, PAIR, Kill, Start, dying
from mlflow_runs import trial_runs

from harness import provenance
from harness.spec import Result, TrialSpec, flattened
from harness.tracking import TAG_LIMIT, MlflowTracker

FACTS = ORIGIN | {"ledger": "a_study.default"}


def folder_of_a_result(tmp_path: Path) -> Path:
    files = tmp_path / "result"
    (files / "figures").mkdir(parents=True)
    (files / "figures" / "curves.png").write_bytes(b"picture")
    (files / "pictures.npz").write_bytes(b"arrays")
    return files


def test_mlflow_holds_a_trial_from_begin_to_finish(mlflow_store: Path, tmp_path: Path) -> None:
    spec = TrialSpec(dataset="digits", seed=3)
    tracker = MlflowTracker("a_study", "default", "a note")
    client = mlflow.MlflowClient()
    run = tracker.begin(spec, "bce", 7, 1, FACTS)
    assert client.get_run(run).info.status == "RUNNING"
    assert tracker.finished_runs("a_study.default") == set()
    tracker.log(run, 1, {"elbo/train": -200.0})
    tracker.log(run, 2, {"elbo/train": -150.0})
    tracker.finish(run, Result(spec, {"test/squared_error": 30.0}), folder_of_a_result(tmp_path))

    kept = client.get_run(run)
    assert kept.info.status == "FINISHED"
    wanted = {
        "kind": "trial",
        "study": "a_study",
        "cell": spec.id,
        "arm": "bce",
        "seed": "3",
        "trial": "7",
        "version.harness": provenance.version("vae-harness"),
        "digest.harness": provenance.digest(),
        "mlflow.parentRunId": tracker.parent,
    }
    assert {k: kept.data.tags.get(k) for k in wanted} == wanted
    assert kept.data.tags.get("git.commit", "unknown") == provenance.commit().partition("+")[0]
    assert kept.data.params == {
        "arm": "bce",
        "spec": spec.id,
        **{name: str(value) for name, value in flattened(spec.as_dict()).items()},
    }
    assert kept.inputs.dataset_inputs[0].dataset.name == "digits"
    assert [(m.step, m.value) for m in client.get_metric_history(run, "elbo/train")] == [(1, -200.0), (2, -150.0)]
    assert tracker.file(run, "pictures.npz").read_bytes() == b"arrays"
    assert TrialSpec.from_dict(mlflow.artifacts.load_dict(f"{kept.info.artifact_uri}/spec.json")) == spec
    assert tracker.look(run) == ("FINISHED", {"elbo/train": -150.0, "test/squared_error": 30.0})
    assert tracker.finished_runs("a_study.default") == {run}
    assert tracker.finished_runs("another") == set()
    (record,) = tracker.results({spec.id: run, "another": "missing"}).values()
    assert (record.run, record.metrics["test/squared_error"]) == (run, 30.0)


def test_mlflow_tags_a_run_that_diverged_and_no_other(mlflow_store: Path, tmp_path: Path) -> None:
    tracker, client = MlflowTracker("a_study", "default", "a note"), mlflow.MlflowClient()
    found = {}
    for seed, lost in enumerate((0.0, 23.1)):
        spec = TrialSpec(dataset="digits", seed=seed)
        run = tracker.begin(spec, "bce", seed, 1, FACTS)
        tracker.finish(run, Result(spec, {"diagnostics/lost_elbo": lost}), folder_of_a_result(tmp_path / str(seed)))
        found[lost] = client.get_run(run).data.tags.get("finding.diverged", "")
    assert found[0.0] == ""
    assert found[23.1].startswith("worse than an untrained model")


def test_mlflow_tells_failed_killed_and_orphaned_apart(mlflow_store: Path) -> None:
    tracker = MlflowTracker("a_study", "default", "")
    failed, stopped, orphan, mine = (tracker.begin(TrialSpec(seed=i), "bce", i, 1, FACTS) for i in range(4))
    tracker.fail(failed, "x" * 100_000)
    tracker.fail(stopped, "stopped", killed=True)
    assert tracker.close_orphans("another", set(), 0) == 0
    assert tracker.close_orphans("a_study.default", {mine}, 3600) == 0
    assert tracker.close_orphans("a_study.default", {mine}, 0) == 1
    assert [mlflow.get_run(r).info.status for r in (failed, stopped, orphan, mine)] == ["FAILED", "KILLED", "KILLED", "RUNNING"]
    assert mlflow.get_run(failed).data.tags["failure"] == "x" * TAG_LIMIT
    assert tracker.finished_runs("a_study.default") == set()


def test_mlflow_keeps_one_parent_per_study_and_budget(mlflow_store: Path, tmp_path: Path) -> None:
    first, second, smoke = (MlflowTracker("a_study", b, "") for b in ("default", "default", "smoke"))
    assert first.parent == second.parent != smoke.parent
    assert smoke.experiment == "a_study-smoke"
    first.reopen_study()
    assert mlflow.get_run(first.parent).info.status == "RUNNING"
    first.stop_study()
    assert mlflow.get_run(first.parent).info.status == "KILLED"
    first.finish_study(folder_of_a_result(tmp_path), {"verdict.1": "none"}, "a note")
    parent = mlflow.get_run(first.parent)
    assert (parent.info.status, parent.data.tags["kind"], parent.data.tags["verdict.1"]) == ("FINISHED", "study", "none")


def test_a_study_on_record_in_mlflow_is_resumed(mlflow_store: Path, tmp_path: Path) -> None:
    tracker = MlflowTracker("a_study", "default", "")
    with pytest.raises(Kill):
        Start(PAIR, tracker, queue=dying()).go(tmp_path)
    again = Start(PAIR, MlflowTracker("a_study", "default", "")).go(tmp_path)
    assert "took over 1 trial" in again.notes[0]
    found = trial_runs(tracker)
    assert Counter(r.info.status for r in found) == {"FINISHED": 4}
    assert set(again.queue.done().values()) == {r.info.run_id for r in found}
