"""Records that were moved, copied, deleted, renamed or lost: a finished study says so in a line, keeps what is left and goes on."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from drivers import PAIR
from homes import home_at
from memory_tracker import MemoryTracker
from optuna.trial import TrialState
from refusals import fingerprint

import harness
from harness import cli
from harness.queue import AblationQueue, TrialStore, adopt, completed_runs, database
from harness.queue.restoring import facts_of
from harness.runner.study_store import StudyStore
from harness.tracking import MANIFEST_TAG, MlflowTracker, Record, library
from harness.tracking.relocation import relocate

pytestmark = pytest.mark.usefixtures("unpainted")

PLAN = '''"""Does a study find its records?"""
from harness import Ablation, Budget, Hypothesis, TrialSpec

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=600),
    arms={"bce": {}, "mse": {"likelihood": "mse"}},
    budgets={"default": Budget(epochs=1, seeds=range(1)), "more": Budget(epochs=1, seeds=range(2))},
    hypotheses=(Hypothesis(better="bce", worse="mse", metric="test/common_bits"),),
)
'''
SEARCH = '''"""Which learning rate?"""
from harness import TrialSpec
from harness.study import Pruner, Real, Search, SearchBudget

STUDY = Search(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=600),
    space={"learning_rate": Real(1e-4, 1e-1, log=True)},
    objectives=("elbo/validation",),
    pruner=Pruner(name="asha"),
    budgets={"default": SearchBudget(trials=5, epochs=2, refit_seeds=range(1, 6))},
)
'''
STUDY = ("--device", "cpu", "--workers", "1", "--executor", "local")
DELETE_RUNS = "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = 1"
PARENT = "run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'kind' AND value = 'study')"


@pytest.fixture(scope="module")
def finished(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which a study of two trials was trained and reported, with the study's file beside it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "plan.py").write_text(PLAN)
    (folder / "home" / "mlruns").mkdir(parents=True)
    shutil.copy(mlflow_template, folder / "home" / "mlruns" / "mlflow.db")
    with home_at(folder / "home"):
        assert cli.main(["study", str(folder / "plan.py"), *STUDY]) == 0
    return folder


@pytest.fixture(scope="module")
def searched(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same home in which a search was trained and reported too, with the search's file beside it."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "rates.py").write_text(SEARCH)
    shutil.copytree(finished / "home", folder / "home")
    with home_at(folder / "home"):
        assert cli.main(["study", str(folder / "rates.py"), *STUDY]) == 0
    return folder


@dataclass
class Home:
    """A home that was copied from the finished one, and the commands of its user."""

    path: Path
    plan: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def use(self, path: Path) -> None:
        self.path = path
        self.monkeypatch.setenv("HARNESS_HOME", str(path))
        self.monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command of the study and return all that it said; an error has at most six lines."""
        self.monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        self.capsys.readouterr()
        command, *options = arguments
        ended = cli.main([command, str(self.plan), *(STUDY if command == "study" else ()), *options])
        out, err = self.capsys.readouterr()
        assert ended == code, out + err
        assert not code or len(err.partition("harness: ")[2].strip().splitlines()) <= 6
        return " ".join((out + err).split())

    def sql(self, name: str, statement: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.path / "mlruns" / name)) as connection, connection:
            return connection.execute(statement).fetchall()

    def runs(self) -> list[tuple[object, ...]]:
        """Return id, status and stage of every run."""
        return self.sql("mlflow.db", "SELECT run_uuid, status, lifecycle_stage FROM runs ORDER BY run_uuid")


@pytest.fixture
def home_of(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], Home]:
    """Copy the finished home to a place of this name."""

    def copy(name: str = "copy") -> Home:
        found = Home(tmp_path / name, finished / "plan.py", monkeypatch, capsys)
        shutil.copytree(finished / "home", found.path)
        found.use(found.path)
        return found

    return copy


@pytest.fixture
def copied(home_of: Callable[[str], Home]) -> Home:
    return home_of("copy")


# R2: moved, copied


@pytest.mark.parametrize("name", ["moved", "an odd%20 #?;'é name"], ids=["R2-moved", "R2-moved-to-an-odd-name"])
def test_a_home_that_was_moved_or_copied_has_its_records(home_of: Callable[[str], Home], finished: Path, name: str) -> None:
    home, before = home_of(name), fingerprint(finished / "home")
    assert "all as it was kept" in home.run("verify")
    said = home.run("study")
    assert f"this home was in {finished / 'home'}: its files are read and written here" in said
    assert "nothing to do: all trials are done" in said
    assert "this home was" not in home.run("report")
    model, frame = harness.load("plan", arm="bce"), harness.frame("plan")
    assert model.decode(np.zeros((1, 2), dtype=np.float32)).shape == (1, 8, 8)
    assert len(frame) == 2
    assert fingerprint(finished / "home") == before  # nothing was written where the home was
    assert home.sql("mlflow.db", f"SELECT count(*) FROM runs WHERE artifact_uri LIKE '%{finished}%'") == [(0,)]


@pytest.mark.slow
def test_r2_two_copies_that_go_on_do_not_mix(home_of: Callable[[str], Home]) -> None:
    first, second = home_of("first"), home_of("second")
    second.run("study", "--budget", "more")
    files = [*(second.path / "mlruns" / "artifacts").rglob("state_dict.pt")]
    first.use(first.path)
    assert "nothing to do" in first.run("study")
    assert len(files) == 6
    assert len([*(first.path / "mlruns" / "artifacts").rglob("state_dict.pt")]) == 2


@pytest.mark.parametrize("place", ["s3://bucket/runs", "file:///shared/runs"], ids=["R2-bucket", "R2-shared-folder"])
def test_files_that_lie_in_no_home_stay_where_they_are(copied: Home, place: str) -> None:
    copied.run("report")
    copied.sql("mlflow.db", f"INSERT INTO experiments (experiment_id, name, artifact_location) VALUES (9, 'x', '{place}/x')")
    assert "this home was" not in copied.run("verify")
    assert copied.sql("mlflow.db", "SELECT artifact_location FROM experiments WHERE experiment_id = 9") == [(f"{place}/x",)]


# R1: what people do in MLflow's UI


def delete_experiment(home: Home) -> None:
    home.run("report")  # which makes the addresses those of this home
    client = library.client()
    client.delete_experiment(client.get_experiment_by_name("plan").experiment_id)


@pytest.mark.parametrize("command", ["study", "report", "verify", "doctor"], ids=lambda c: f"R1-{c}")
def test_a_deleted_experiment_is_said_with_the_ways_on(copied: Home, command: str) -> None:
    delete_experiment(copied)
    said = copied.run(command, code=4)
    assert "the experiment 'plan' was deleted in MLflow" in said
    assert "mlflow experiments restore --experiment-id 1" in said
    assert "the same command with --anew" in said or "the same command with ANEW=1" in said


def test_r1_a_restored_experiment_has_nothing_to_do(copied: Home) -> None:
    delete_experiment(copied)
    library.client().restore_experiment("1")
    assert "nothing to do" in copied.run("study")


@pytest.mark.slow
def test_r1_a_study_starts_anew_beside_its_deleted_experiment(copied: Home) -> None:
    delete_experiment(copied)
    said = copied.run("study", "--anew")
    assert "2 results are no longer in MLflow" in said
    assert "2 trials to run" in said
    assert "all as it was kept" in copied.run("verify")
    names = copied.sql("mlflow.db", "SELECT name, lifecycle_stage FROM experiments WHERE name LIKE 'plan%' ORDER BY experiment_id")
    assert [stage for _, stage in names] == ["deleted", "active"]
    assert str(names[0][0]).startswith("plan (deleted, ")


def test_r1_anew_is_refused_for_a_study_that_nobody_deleted(copied: Home) -> None:
    before = copied.runs()
    assert "whose experiment was deleted in MLflow: 'plan' was not" in copied.run("study", "--anew", code=2)
    assert copied.runs() == before


def test_r1_anew_is_refused_where_nothing_is_and_leaves_nothing(copied: Home, tmp_path: Path) -> None:
    copied.use(tmp_path / "empty")
    assert "whose experiment was deleted in MLflow: 'plan' was not" in copied.run("study", "--anew", code=2)
    assert not (tmp_path / "empty").exists()


def test_r1_a_renamed_experiment_is_named_with_the_command_that_renames_it_back(copied: Home) -> None:
    copied.run("report")
    library.client().rename_experiment("1", "something else")
    said = copied.run("study", code=4)
    assert "the experiment 'plan' is called 'something else' in MLflow" in said
    assert "mlflow experiments rename --experiment-id 1 --new-name plan" in said
    library.client().rename_experiment("1", "plan")
    assert "nothing to do" in copied.run("study")


def test_r11_a_new_parent_adopts_the_runs_of_a_deleted_one(copied: Home) -> None:
    copied.sql("mlflow.db", f"{DELETE_RUNS} WHERE {PARENT}")
    said = copied.run("study")
    assert "the study's parent run was deleted in MLflow: 2 runs have a new one" in said
    assert "nothing to do" in said
    ((parent,),) = copied.sql("mlflow.db", f"SELECT run_uuid FROM runs WHERE {PARENT} AND lifecycle_stage = 'active'")
    assert set(copied.sql("mlflow.db", "SELECT value FROM tags WHERE key = 'mlflow.parentRunId'")) == {(parent,)}
    assert "all as it was kept" in copied.run("verify")


@pytest.mark.slow
def test_r11_a_deleted_run_of_a_trial_is_trained_again_and_said(copied: Home) -> None:
    copied.sql("mlflow.db", f"{DELETE_RUNS} WHERE name = 'bce / seed 0'")
    said = copied.run("study")
    assert "1 result is no longer in MLflow" in said
    assert "1 trial to run" in said
    assert "which was deleted: its trial was trained again" in copied.run("verify")


def test_r11_what_is_deleted_while_a_study_writes_to_it_is_an_error_in_words(copied: Home) -> None:
    copied.run("report")
    tracker = MlflowTracker("plan", "default", "")
    ((run,),) = copied.sql("mlflow.db", "SELECT run_uuid FROM runs WHERE name = 'bce / seed 0'")
    library.client().delete_run(run)
    with pytest.raises(harness.errors.MachineError, match="deleted in MLflow while the study was running"):
        tracker.log(str(run), 2, {"elbo/train": 1.0})
    assert tracker.look(str(run)) == ("", {})


@pytest.mark.slow
def test_r1_an_experiment_that_is_deleted_while_its_study_runs_stops_it_in_words(copied: Home) -> None:
    real, deleted = MlflowTracker.log, list[str]()

    def log(tracker: MlflowTracker, run: str, step: int, row: Mapping[str, float]) -> None:
        if not deleted:
            deleted.append(tracker.experiment_id)
            library.client().delete_experiment(tracker.experiment_id)
        real(tracker, run, step, row)

    copied.monkeypatch.setattr(MlflowTracker, "log", log)
    assert "deleted in MLflow while the study was running" in copied.run("study", "--budget", "more", code=4)
    assert "was deleted in MLflow, with all runs" in copied.run("study", "--budget", "more", code=4)
    library.client().restore_experiment(deleted[0])
    copied.run("study", "--budget", "more")
    assert "nothing to do" in copied.run("study", "--budget", "more")
    finished = "SELECT count(*) FROM runs WHERE experiment_id = ? AND status = 'FINISHED' AND lifecycle_stage = 'active'"
    assert copied.sql("mlflow.db", finished.replace("?", deleted[0])) == [(4 + 1,)]  # its trials, and the parent


# R7: one of the two databases is lost


def test_r7_a_lost_trial_store_is_read_back_from_mlflow(copied: Home) -> None:
    copied.run("report")
    runs, plan = copied.runs(), copied.run("plan")
    (copied.path / "mlruns" / "optuna.db").unlink()
    said = copied.run("study")
    assert "2 of the study's results are not in the trial store: read back and the plan from MLflow" in said
    assert "nothing to do: all trials are done" in said
    assert copied.runs() == runs
    assert "all as it was kept" in copied.run("verify")
    assert copied.run("plan") == plan


def test_r7_a_report_reads_a_lost_trial_store_back_too(copied: Home) -> None:
    copied.run("study")
    before = copied.run("report")
    (copied.path / "mlruns" / "optuna.db").unlink()
    assert copied.run("report").startswith(before)


def test_r7_a_plan_that_was_edited_does_not_come_back(copied: Home) -> None:
    (copied.path / "mlruns" / "optuna.db").unlink()
    (file,) = (copied.path / "mlruns" / "artifacts").rglob("plan.json")
    entries = json.loads(file.read_text())
    entries[0]["known"] = {"bce": 5}
    file.write_text(json.dumps(entries))
    said = copied.run("report")
    assert "read back from MLflow" in said
    assert "and the plan" not in said


def test_r7_a_lost_tracking_store_is_made_again_from_the_trials_and_their_files(copied: Home) -> None:
    trials = "SELECT run_uuid FROM tags WHERE key = 'kind' AND value = 'trial'"
    asked = [
        f"SELECT {columns} FROM {table} WHERE run_uuid IN ({trials}) ORDER BY 1, 2, 3"
        for table, columns in {
            "runs": "run_uuid, status, name, lifecycle_stage",
            "metrics": "run_uuid, key, step, value, is_nan",
            "params": "run_uuid, key, value",
            "tags": "run_uuid, key, value",
        }.items()
    ]
    user = "mlflow.user', 'mlflow.source.name', 'mlflow.source.type', 'mlflow.parentRunId"
    asked[-1] = asked[-1].replace(" ORDER", f" AND key NOT IN ('{user}') ORDER")
    before = [copied.sql("mlflow.db", question) for question in asked]
    (copied.path / "mlruns" / "mlflow.db").unlink()
    said = copied.run("study")
    assert "2 of the study's runs were not in MLflow: read back from the trial store and their files" in said
    assert "nothing to do: all trials are done" in said
    after = [copied.sql("mlflow.db", question) for question in asked]
    assert after == before
    assert len(before[1]) > 2 * 30
    assert "all as it was kept" in copied.run("verify")
    assert "registered" in copied.run("plan")
    assert "read back" not in copied.run("study")
    (parent,) = copied.sql(
        "mlflow.db", f"SELECT DISTINCT value FROM tags WHERE key = 'mlflow.parentRunId' AND run_uuid IN ({trials})"
    )
    assert parent in copied.sql("mlflow.db", "SELECT run_uuid FROM runs WHERE status = 'FINISHED'")


def test_r7_a_start_that_ends_while_runs_are_entered_again_is_gone_on_with(copied: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (copied.path / "mlruns" / "mlflow.db").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(library, "dataset_input", lambda *_: 1 / 0)
        copied.run("study", code=70)
    assert [status for _, status, _ in copied.runs()].count("SCHEDULED") == 1
    said = copied.run("study")
    assert "2 of the study's runs were not in MLflow: read back" in said
    assert "nothing to do" in said
    assert "all as it was kept" in copied.run("verify")


def test_r7_a_run_that_was_deleted_in_mlflow_stays_deleted(copied: Home) -> None:
    run = copied.sql("mlflow.db", "SELECT run_uuid FROM tags WHERE key = 'kind' AND value = 'trial'")[0][0]
    copied.sql("mlflow.db", f"{DELETE_RUNS} WHERE run_uuid = '{run}'")
    said = copied.run("report")
    assert "read back" not in said
    assert "1 result is no longer in MLflow" in said


@pytest.mark.slow
def test_r7_runs_whose_files_are_gone_too_are_trained_again_and_that_is_said(copied: Home) -> None:
    (copied.path / "mlruns" / "mlflow.db").unlink()
    first, second = (copied.path / "mlruns" / "artifacts").rglob("history.json")
    first.unlink()
    second.write_text(second.read_text().replace("1", "2", 1))
    said = copied.run("study")
    assert "2 results are no longer in MLflow" in said
    assert "2 trials to run" in said
    assert "all as it was kept" in copied.run("verify")
    assert "nothing to do" in copied.run("study")


@pytest.mark.slow
@pytest.mark.parametrize("store", ["optuna.db", "mlflow.db"], ids=lambda name: f"R7-{name}-of-a-search")
def test_a_search_has_its_results_again_from_either_store(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: str
) -> None:
    home = Home(tmp_path / "moved", searched / "rates.py", monkeypatch, capsys)
    shutil.copytree(searched / "home", home.path)
    home.use(home.path)
    finished = (
        "SELECT run_uuid FROM runs JOIN tags USING (run_uuid) WHERE key = 'ledger' AND value LIKE 'rates.%' AND status = 'FINISHED'"
    )
    before = {*home.sql("mlflow.db", finished)}
    assert len(before) > 2 * 5  # of both judged arms, and of the search
    (home.path / "mlruns" / store).unlink()
    said = home.run("study")
    assert ("results are not in the trial store" if store == "optuna.db" else "read back from the trial store") in said
    assert {*home.sql("mlflow.db", finished)} == before
    assert "all as it was kept" in home.run("verify")
    assert "nothing to do" in home.run("study")


@pytest.mark.parametrize("folder", ["reports", "checked", "locks", "scratch", "checkpoints"], ids=lambda f: f"R7-{f}-lost")
def test_a_folder_that_can_be_made_again_is(copied: Home, folder: str) -> None:
    shutil.rmtree(copied.path / "mlruns" / folder, ignore_errors=True)
    assert "nothing to do" in copied.run("study")
    assert (copied.path / "mlruns" / "reports" / "plan" / "report.html").exists()


def test_r7_trials_that_come_back_under_other_numbers_say_which_they_had(copied: Home) -> None:
    copied.run("study", "--budget", "more")
    (copied.path / "mlruns" / "optuna.db").unlink()
    (gone,) = copied.sql(
        "mlflow.db",
        "SELECT run_uuid FROM tags WHERE key = 'trial' AND value = '1' AND run_uuid IN "
        "(SELECT run_uuid FROM tags WHERE key = 'ledger' AND value = 'plan.more')",
    )
    copied.sql("mlflow.db", f"{DELETE_RUNS} WHERE run_uuid = '{gone[0]}'")
    copied.run("study", "--budget", "more")
    assert "all as it was kept" in copied.run("verify", "--budget", "more")


def test_homes_that_share_a_database_leave_other_files(copied: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = copied.sql("mlflow.db", "SELECT artifact_uri FROM runs")
    relocate(copied.path / "mlruns" / "mlflow.db")
    here = copied.sql("mlflow.db", "SELECT artifact_uri FROM runs")
    assert here != before
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "another"))
    (tmp_path / "another" / "mlruns" / "artifacts").mkdir(parents=True)
    relocate(copied.path / "mlruns" / "mlflow.db")
    assert copied.sql("mlflow.db", "SELECT artifact_uri FROM runs") == here


def test_r7_an_older_copy_of_the_trial_store_gets_what_it_lacks(mlflow_store: Path) -> None:
    """Of a cell that waits, one that was never begun and one with a trial of its own: only the first two are read back."""
    store = TrialStore("a_study.default", ["minimize"], database())
    queue = AblationQueue(store, PAIR.cells("default"), lambda metrics: metrics["elbo/train"])
    queue.prepare()
    ids = list(queue.cells)
    (assignment,) = queue.take(1, lambda cell: cell.spec.id)
    queue.note_run(assignment, "its own")
    tags = {"arm": "an arm", "seed": "0", "attempt": "2", "manifest.sha256": "digest"}
    records = [
        Record(f"run {n}", {"elbo/train": float(n)}, {**tags, "cell": cell, "trial": str(n)})
        for n, cell in enumerate([ids[0], ids[1], "of an earlier plan"])
    ]
    assert adopt(queue, records, MANIFEST_TAG) == 2
    assert queue.done() == {ids[1]: "run 1"}
    assert completed_runs(store) == {ids[1]: "run 1", "of an earlier plan": "run 2"}
    complete = store.trials(TrialState.COMPLETE)
    assert {t.user_attrs["cell"]: t.value for t in complete} == {ids[1]: 1.0, "of an earlier plan": 2.0}
    assert all(t.user_attrs["manifest"] == "digest" for t in complete)
    assert adopt(queue, records, MANIFEST_TAG) == 0


@pytest.mark.parametrize("noted", range(4), ids=lambda n: f"R7-{n}-of-3-facts")
def test_results_that_come_back_are_taken_although_a_start_was_killed_at_it(noted: int, mlflow_store: Path) -> None:
    """After it had claimed the trial that waits, and noted so many facts of the run."""
    store = TrialStore("a_study.default", ["minimize"], database())
    queue = AblationQueue(store, PAIR.cells("default"), lambda metrics: metrics["elbo/train"])
    queue.prepare()
    cell = store.trials()[0].user_attrs["cell"]
    tags = {"arm": "an arm", "seed": "0", "attempt": "1", "manifest.sha256": "digest", "cell": cell, "trial": "7"}
    record = Record("run 0", {"elbo/train": 0.5}, tags)
    assert store.claim(0)
    store.note(0, dict(list(facts_of(record, 0, MANIFEST_TAG).items())[:noted]))
    again = TrialStore("a_study.default", ["minimize"], database())
    queue = AblationQueue(again, PAIR.cells("default"), lambda metrics: metrics["elbo/train"])
    if noted < 3:
        assert adopt(queue, [record], MANIFEST_TAG) == 1
    else:  # it names its run, and is settled as any whose driver was killed before its end
        assert adopt(queue, [record], MANIFEST_TAG) == 0
        assert queue.reconcile(lambda run: ("FINISHED", record.metrics), {"run 0"}).adopted == 1
    assert completed_runs(again) == {cell: "run 0"}


# R14


def test_r14_a_report_of_what_never_ran_leaves_nothing(copied: Home, tmp_path: Path) -> None:
    copied.use(tmp_path / "empty")
    assert "no trial of plan (default budget) is on record" in copied.run("report", code=2)
    assert not (tmp_path / "empty").exists()


def test_r14_nor_in_a_home_with_other_studies(copied: Home) -> None:
    copied.run("report")
    before = copied.sql("mlflow.db", "SELECT name FROM experiments")
    assert "no trial of plan (more budget) is on record" in copied.run("report", "--budget", "more", code=2)
    assert copied.sql("mlflow.db", "SELECT name FROM experiments") == before


# R17


@pytest.mark.parametrize(
    ("objective", "best"), [("test/squared_error", 1.0), ("test/knn15_accuracy", 3.0)], ids=["R17-lower", "R17-higher"]
)
def test_the_best_trial_of_optuna_is_the_winner(objective: str, best: float) -> None:
    study = replace(PAIR, objective=objective, budgets={"default": replace(PAIR.budgets["default"], evaluation="quick")})
    store = StudyStore("a_study", "default", MemoryTracker(), "")  # type: ignore[arg-type] -- which has all that is asked of one
    with store.ablation_queue(study, study.cells("default"), "") as queue:
        queue.prepare()
        for value in (2.0, 1.0, 3.0):
            (assignment,) = queue.take(1, lambda cell: cell.spec.id)
            queue.note_run(assignment, f"run {value}")
            queue.complete(assignment, {objective: value, "elbo/train": -value})
        assert queue.store.study.best_trial.user_attrs["run"] == f"run {best}"
