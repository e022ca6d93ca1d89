"""`harness verify`: a fresh study is as it was kept, and every single change to it is found and named."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from drivers import PAIR, Kill, Start, dying
from evidence_home import RAW, Home, report
from rich.console import Console

from harness import plans
from harness.evidence.faults import Found
from harness.evidence.trials import store_faults
from harness.evidence.verify import verify
from harness.queue import TrialOnRecord
from harness.study import Budget
from harness.tracking import MlflowTracker

Said = Callable[..., tuple[int, str]]


def content_of(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, and the names of its folders."""
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "" for p in sorted(folder.rglob("*"))}


def test_a_fresh_study_is_as_it_was_kept_and_stays_so(on_record: Home, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(on_record.path)
    before = content_of(on_record.path)
    code, words = said()
    assert code == 0, words
    assert words.startswith("a_study, default budget: all as it was kept: 4 runs with ")
    for run in on_record.runs():
        assert said(run)[0] == 0
    assert content_of(on_record.path) == before


def a_byte_of(path: Path) -> str:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path.name


def a_byte_of_the_weights(home: Home, run: str) -> str:
    a_byte_of(home.files(run) / "state_dict.pt")
    return "file state_dict.pt: sha256 kept "


def a_byte_of_the_data(home: Home, run: str) -> str:
    a_byte_of(home.path / "data" / RAW)
    return "data/TOY/raw/images-ubyte: sha256 kept "


def a_byte_of_the_page(home: Home, run: str) -> str:
    a_byte_of(home.mlruns / "reports" / "a_study" / "report.html")
    return "reports/a_study (run " + home.parent() + "): file report.html: sha256 kept "


def a_byte_of_the_page_in_mlflow(home: Home, run: str) -> str:
    a_byte_of(home.files(home.parent()) / "report.html")
    return "the report in the parent run (run " + home.parent() + "): file report.html: sha256 kept "


def a_last_score(home: Home, run: str) -> str:
    home.sql("mlflow.db", f"UPDATE latest_metrics SET value = value + 1e-9 WHERE key = 'kl/validation' AND run_uuid = '{run}'")
    return "metric kl/validation: kept "


def a_score_of_an_epoch(home: Home, run: str) -> str:
    home.sql("mlflow.db", f"UPDATE metrics SET value = value + 1e-9 WHERE key = 'kl/train' AND run_uuid = '{run}'")
    return "metric kl/train: its values by epoch are not those that were kept"


def a_score_more(home: Home, run: str) -> str:
    columns = "key, value, timestamp, run_uuid, step, is_nan"
    home.sql("mlflow.db", f"INSERT INTO latest_metrics ({columns}) VALUES ('test/elbo', -1, 0, '{run}', 1, 0)")
    return "metric test/elbo was not kept: -1.0"


def a_field(home: Home, run: str) -> str:
    path = home.files(run) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["hardware"]["cpu"]
    path.write_text(json.dumps(manifest))
    return "manifest.json: the field hardware.cpu is missing"


def the_manifest(home: Home, run: str) -> str:
    (home.files(run) / "manifest.json").unlink()
    return "manifest.json is missing"


def a_status(home: Home, run: str) -> str:
    home.sql("mlflow.db", f"UPDATE runs SET status = 'FAILED' WHERE run_uuid = '{run}'")
    return "the trial is COMPLETE, but the status of its run is FAILED"


def a_deletion(home: Home, run: str) -> str:
    home.sql("mlflow.db", f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = '{run}'")
    return "the trial is COMPLETE, but the status of its run is deleted"


def a_tag(home: Home, run: str) -> str:
    home.sql("mlflow.db", f"UPDATE tags SET value = 'mse' WHERE key = 'arm' AND run_uuid = '{run}'")
    return "tag arm: kept 'bce', found 'mse'"


def a_parameter(home: Home, run: str) -> str:
    home.sql("mlflow.db", f"UPDATE params SET value = '0.1' WHERE key = 'learning_rate' AND run_uuid = '{run}'")
    return "parameter learning_rate: kept '0.0003', found '0.1'"


def the_digest_in_mlflow(home: Home, run: str) -> str:
    home.sql("mlflow.db", f"UPDATE tags SET value = 'f' WHERE key = 'manifest.sha256' AND run_uuid = '{run}'")
    return "manifest.json: sha256 in the tag manifest.sha256 f, found "


def the_digest_in_the_trial_store(home: Home, run: str) -> str:
    home.sql("optuna.db", "UPDATE trial_user_attributes SET value_json = '\"f\"' WHERE key = 'manifest' AND trial_id = 1")
    return "manifest.json: sha256 in the trial store f, found "


def a_file(home: Home, run: str) -> str:
    (home.files(run) / "study.py").unlink()
    return "file study.py is missing"


def a_file_more(home: Home, run: str) -> str:
    (home.files(run) / "extra.txt").write_text("x")
    return "file extra.txt is not in manifest.json"


def the_spec(home: Home, run: str) -> str:
    path = home.files(run) / "spec.json"
    path.write_text(path.read_text().replace("0.0003", "0.0004"))
    return "file spec.json: sha256 kept "


def a_trial_s_state(home: Home, run: str) -> str:
    home.sql("optuna.db", "UPDATE trials SET state = 'FAIL' WHERE number = 0")
    return "the run is FINISHED, but the state of its trial is FAIL"


def a_trial_s_run(home: Home, run: str) -> str:
    home.sql("optuna.db", "UPDATE trial_user_attributes SET value_json = '\"beef\"' WHERE key = 'run' AND trial_id = 1")
    return "FINISHED, but no trial of the trial store names it"


def a_trial_s_value(home: Home, run: str) -> str:
    home.sql("optuna.db", "UPDATE trial_values SET value = 1.5 WHERE trial_id = 1")
    return "the trial is judged by 1.5, which is no score of its run"


def a_second_result(home: Home, run: str) -> str:
    columns = [name for _, name, *_ in home.sql("mlflow.db", "PRAGMA table_info(runs)")]
    for table, names in (("runs", columns), ("tags", ["key", "value", "run_uuid"])):
        copied = ", ".join(f"'{'c' * 32}'" if name == "run_uuid" else name for name in names)
        home.sql("mlflow.db", f"INSERT INTO {table} ({', '.join(names)}) SELECT {copied} FROM {table} WHERE run_uuid = '{run}'")
    return "its cell has 2 finished runs, 1 counts: also "


def a_stored_plan(home: Home, run: str) -> str:
    home.sql("optuna.db", "UPDATE study_user_attributes SET value_json = replace(value_json, 'arms', 'legs') WHERE key = 'plan.1'")
    return "entry 1 of the stored plan was edited"


def a_plan_s_copy(home: Home, run: str) -> str:
    path = home.files(home.parent()) / "plan.json"
    path.write_text(path.read_text().replace("arms", "legs"))
    return "plan.json of the parent run was edited"


def a_plan_s_tag_set_back(home: Home, run: str) -> str:
    first = json.loads((home.files(home.parent()) / "plan.json").read_text())[0]["sha256"]
    home.sql("mlflow.db", f"UPDATE tags SET value = '{first}' WHERE key = 'plan' AND run_uuid = '{home.parent()}'")
    return "the tag plan of the parent run is that of entry 1 of 2"


def a_plan_s_copy_cut(home: Home, run: str) -> str:
    (home.files(home.parent()) / "plan.json").write_text("[]")
    return "plan.json of the parent run has 0 of 2 entries"


def a_look_since_the_report(home: Home, run: str) -> str:
    path = home.files(home.parent()) / "plan.json"
    notes = {f"plan.{e['number']}": json.dumps(e) for e in json.loads(path.read_text())}
    chain = plans.read(notes).and_look({"looks": {"a": 3}})
    path.write_text(chain.as_text())
    home.sql("mlflow.db", f"UPDATE tags SET value = '{chain.head}' WHERE key = 'plan' AND run_uuid = '{home.parent()}'")
    entry = json.dumps(json.dumps(vars(chain.entries[-1]))).replace("'", "''")
    columns = "study_id, key, value_json"
    home.sql("optuna.db", f"INSERT INTO study_user_attributes ({columns}) VALUES (1, 'plan.3', '{entry}')")
    return f"but the trial store's ends in {chain.head}: write it anew"


def of_the_parent(home: Home, tag: str, value: str) -> None:
    home.sql("mlflow.db", f"UPDATE tags SET value = '{value}' WHERE key = '{tag}' AND run_uuid = '{home.parent()}'")


def a_verdict(home: Home, run: str) -> str:
    of_the_parent(home, "verdict.1", "much was found [registered]")
    return "tag verdict.1: 'much was found [registered]', but verdicts.json says 'nothing was found [registered]'"


def a_verdict_more(home: Home, run: str) -> str:
    home.sql("mlflow.db", f"INSERT INTO tags (key, value, run_uuid) VALUES ('verdict.2', 'x', '{home.parent()}')")
    return "tag verdict.2: 'x', but verdicts.json says None"


def the_winner(home: Home, run: str) -> str:
    of_the_parent(home, "winner", "mse / seed 0, the best of all")
    return "tag winner: 'mse / seed 0, the best of all', which the page does not say"


def the_winner_s_trial(home: Home, run: str) -> str:
    of_the_parent(home, "winner.cell", "beef")
    return "tag winner.cell: kept "


def what_the_report_was_made_of(home: Home, run: str) -> str:
    of_the_parent(home, "report.made_of", "beef")
    return "tag report.made_of: beef, but the page says dddd"


def the_description(home: Home, run: str) -> str:
    of_the_parent(home, "mlflow.note.content", "**a question**, answered")
    return "the description of the parent run is not the one that was written with the report"


def the_description_of_the_experiment(home: Home, run: str) -> str:
    home.sql("mlflow.db", "UPDATE experiment_tags SET value = replace(value, 'open', 'yes') WHERE key = 'mlflow.note.content'")
    return "the description of the experiment is not the one that was written with the report"


CHANGES = (
    a_plan_s_tag_set_back,
    a_plan_s_copy_cut,
    a_look_since_the_report,
    a_verdict,
    a_verdict_more,
    the_winner,
    the_winner_s_trial,
    what_the_report_was_made_of,
    the_description,
    the_description_of_the_experiment,
    a_stored_plan,
    a_plan_s_copy,
    a_byte_of_the_weights,
    a_byte_of_the_data,
    a_byte_of_the_page,
    a_byte_of_the_page_in_mlflow,
    a_last_score,
    a_score_of_an_epoch,
    a_score_more,
    a_field,
    the_manifest,
    a_status,
    a_deletion,
    a_tag,
    a_parameter,
    the_digest_in_mlflow,
    the_digest_in_the_trial_store,
    a_file,
    a_file_more,
    the_spec,
    a_trial_s_state,
    a_trial_s_run,
    a_trial_s_value,
    a_second_result,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_every_change_is_found_and_named(change: Callable[[Home, str], str], on_record: Home, said: Said) -> None:
    run = on_record.runs()[0]
    named = change(on_record, run)
    code, words = said()
    assert code == 1
    (line, *_) = [line for line in words.splitlines() if named in line]
    assert run in line or on_record.parent() in line
    assert "Traceback" not in words


def test_runs_from_before_manifests_get_one_line(on_record: Home, said: Said) -> None:
    for run in on_record.runs():
        (on_record.files(run) / "manifest.json").unlink()
    on_record.sql("mlflow.db", "DELETE FROM tags WHERE key = 'manifest.sha256'")
    on_record.sql("optuna.db", "DELETE FROM trial_user_attributes WHERE key = 'manifest'")
    code, words = said()
    assert code == 1
    assert words.count("4 runs were recorded before manifests were kept") == 1
    assert len(words.splitlines()) == 2  # that line, and the summary


def test_a_report_that_is_older_than_the_runs_is_named(on_record: Home, said: Said) -> None:
    first, *_ = on_record.runs()
    folder = on_record.files(on_record.parent())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["report"]["runs"]) == set(on_record.runs())
    on_record.sql("mlflow.db", f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = '{first}'")
    assert f"made of run {first}, which does not count" in said()[1]


def test_what_is_on_another_machine_is_no_fault(on_record: Home, said: Said) -> None:
    shutil.rmtree(on_record.mlruns / "reports")
    (on_record.path / "data" / RAW).unlink()
    code, words = said()
    assert code == 0, words
    (summary,) = words.splitlines()
    assert f"not here, not held: the data file {RAW}, the report's copy in {on_record.mlruns / 'reports' / 'a_study'}" in summary


def test_a_study_that_trains_again_has_a_description_without_verdicts(on_record: Home, said: Said) -> None:
    MlflowTracker("a_study", "default", "**a question**").reopen_study()
    assert said()[0] == 0
    MlflowTracker("a_study", "default", "**a question**").describe("**a question**\n\n- **yes**: much was found")
    assert said()[1].count("is not the one that was written with the report") == 2


def test_a_cell_of_the_plan_without_a_result_is_named() -> None:
    values: dict = {"store": "a.default", "runs": {}, "manifests": {}, "values": {}}
    failed = TrialOnRecord(number=0, state="FAIL", cell="b", given_up="it diverged", **values)
    found = Found()
    store_faults(found, [], [failed], {"a": "bce / seed 0", "b": "bce / seed 1"})
    assert found.lines == ["bce / seed 0 (spec a): has no result"]


def test_a_checkpoint_that_is_not_as_its_label_says_is_named(on_record: Home, said: Said) -> None:
    cell = on_record.sql("mlflow.db", "SELECT value FROM tags WHERE key = 'cell'")[0][0]
    folder = on_record.mlruns / "checkpoints" / "cpu" / "a_study.default" / cell
    folder.mkdir(parents=True)
    (folder / "000001.pt").write_bytes(b"weights")
    (folder / "000001.json").write_text(json.dumps({"sha256": hashlib.sha256(b"weights").hexdigest()}))
    assert said()[0] == 0
    (folder / "000001.pt").write_bytes(b"w")
    assert f"checkpoint {folder / '000001.pt'}: sha256 kept" in said()[1]
    of_cell = f"run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'cell' AND value = '{cell}')"
    on_record.sql("mlflow.db", f"UPDATE tags SET value = 'plan 2' WHERE key = 'superseded' AND {of_cell}")
    assert "checkpoint" not in said()[1]  # its trial was left out of the plan


def test_a_study_that_was_killed_and_went_on_is_as_it_was_kept(mlflow_store: Path, tmp_path: Path) -> None:
    """Killed after an epoch was trained and before it was on record, then between a run's end and its tell."""
    study = replace(PAIR, budgets={"default": Budget(epochs=3, seeds=(0,), evaluation="validation")})

    class Mortal(MlflowTracker):
        def log(self, run: str, step: int, row: Mapping[str, float]) -> None:
            if step == 2:
                raise Kill
            super().log(run, step, row)

    with pytest.raises(Kill):
        Start(study, Mortal("a_study", "default", "")).go(tmp_path)
    tracker = MlflowTracker("a_study", "default", "")
    with pytest.raises(Kill):
        Start(study, tracker, queue=dying()).go(tmp_path)
    runs = Start(study, tracker).go(tmp_path).queue.done()
    report(tracker, runs)
    screen = io.StringIO()
    assert verify("a_study", "default", Console(file=screen, width=200)) == 0, screen.getvalue()
    resumed = [json.loads(tracker.file(run, "manifest.json").read_text()) for run in runs.values()]
    (first,) = (m for m in resumed if m["time"]["resumes"])
    assert [(s["from_epoch"], s["to_epoch"]) for s in first["execution"]["stints"]] == [(0, 2), (2, 3)]
    assert first["lineage"]["checkpoint"]["epoch"] == 2


@pytest.mark.slow
def test_verifying_needs_no_torch() -> None:
    asked = "import sys, harness.evidence.verify; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", asked], check=True)
