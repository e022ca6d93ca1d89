"""What `harness runs` shows of the runs on record, without MLflow where they are in a file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli, tracking
from harness.spec import Result
from harness.study import load_study
from harness.tracking import MlflowTracker, overview

SMOKE = load_study("activation_ablation").cells("smoke")
SCORES = {"test/squared_error": 37.25, "test/common_bits": 1.5}


@pytest.fixture
def recorded(mlflow_store: Path, tmp_path: Path) -> list[str]:
    """The runs of a study: one that failed and was trained again; one that failed; one under way; one cut off."""
    tracker = MlflowTracker("activation_ablation", "smoke", "a note")
    (tmp_path / "files").mkdir()
    done, failed, again, stopped = SMOKE
    cells = [done, done, failed, again, stopped]
    runs = [
        tracker.begin(cell.spec, cell.arm, trial, 1, {"ledger": "activation_ablation.smoke", "dataset.digest": "d"})
        for trial, cell in enumerate(cells)
    ]
    tracker.fail(runs[0], "worker lost")
    tracker.finish(runs[1], Result(done.spec, SCORES | {"diagnostics/late_gain": float("nan")}), tmp_path / "files")
    tracker.fail(runs[2], "loss is not finite\nmore of it")
    tracker.fail(runs[4], "stopped", killed=True)
    return runs


def test_a_file_is_read_as_mlflow_reads_it(recorded: list[str], mlflow_store: Path) -> None:
    of_file, of_server = ({r.run: r for r in read} for read in (overview._of_file(mlflow_store, ""), overview._of_server("")))
    trials = {run: r for run, r in of_file.items() if r.tags["kind"] == "trial"}
    assert set(trials) == set(of_server) == set(recorded)
    for run, there in of_server.items():
        here = trials[run]
        assert (here.status, here.begun, here.ended, dict(here.tags)) == (there.status, there.begun, there.ended, dict(there.tags))
        assert repr(sorted(here.metrics.items())) == repr(sorted(there.metrics.items()))


def test_studies_are_counted_by_the_newest_run_of_each_trial(recorded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", "--json"]) == 0
    (book,) = json.loads(capsys.readouterr().out)["studies"]
    counts = {name: book[name] for name in ("study", "budget", "finished", "running", "failed", "killed", "report")}
    assert book["pruned"] == 0
    assert counts == {
        "study": "activation_ablation", "budget": "smoke", "finished": 1, "running": 1, "failed": 1, "killed": 1, "report": None,
    }  # fmt: skip
    assert cli.main(["runs"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("activation_ablation (smoke)  20")
    assert "1 finished, 1 running, 1 failed, 1 killed\n  no report on this machine\n" in said


@pytest.mark.parametrize("width", [80, 120])
def test_a_study_s_trials_have_a_line_each(
    width: int, recorded: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(["runs", "activation_ablation", "--budget", "smoke"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert all(sum(line.endswith(run) for line in lines) == (run != recorded[0]) for run in recorded)
    assert [line for line in lines if "failed: " in line] == [f"{SMOKE[1].arm} / seed {SMOKE[1].seed} failed: loss is not finite"]
    assert any("1.500" in line for line in lines) == (width == 120)
    assert any("37.25" in line for line in lines) == (width == 120)
    assert cli.main(["runs", "activation_ablation", "--budget", "smoke", "--json"]) == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert [t["status"] for t in trials] == ["finished", "failed", "running", "killed"]
    assert trials[0]["scores"] == SCORES | {"diagnostics/late_gain": None}
    assert [t["run"] for t in trials] == recorded[1:]
    assert trials[1]["failure"] == "loss is not finite\nmore of it"


def test_what_is_not_on_record_says_what_to_run(recorded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in {
        ("activation_ablation",): "no run of activation_ablation (default budget) is on record\ntrain it: make study "
        "NAME=activation_ablation BUDGET=default\non record: smoke (BUDGET=smoke)\n",
        ("activation_ablaton",): "did you mean 'activation_ablation'?",
        ("--budget", "full"): "...\non record: smoke\n",
    }.items():
        assert cli.main(["runs", *words]) == 2
        assert says in capsys.readouterr().err


def test_nothing_on_record_makes_no_store(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs"]) == 2
    assert "no run is on record in" in capsys.readouterr().err
    assert not home.exists()
    assert tracking.runs_on_record() == []


def test_a_file_that_is_no_database_is_told(mlflow_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mlflow_store.write_bytes(b"no database at all, and long enough for one" * 99)
    assert cli.main(["runs"]) == 4
    assert f"cannot read the tracking store {mlflow_store}" in capsys.readouterr().err
    assert cli.main(["list"]) == 0  # without what is on record


def test_neither_torch_nor_mlflow_is_imported(recorded: list[str]) -> None:
    look = "import sys; from harness import cli; code = cli.main({}); assert not {{'torch', 'mlflow', 'pandas'}} & set(sys.modules)"
    for words in (["runs"], ["list"]):
        subprocess.run([sys.executable, "-c", look.format(words)], check=True, capture_output=True)


def test_a_trial_that_a_search_pruned_was_not_killed(recorded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    tracker = MlflowTracker("activation_ablation", "smoke", "a note")
    tracker.prune(recorded[3], 1)
    assert cli.main(["runs"]) == 0
    assert "1 finished, 1 pruned, 1 failed, 1 killed" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["report", "freeze", "doctor", "verify", "replay"])
def test_every_command_names_the_budget_that_is_on_record(
    command: str, recorded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "activation_ablation"]) == 2
    said = capsys.readouterr().err
    assert "no trial of activation_ablation (default budget) is on record\n" in said
    assert said.endswith("on record: smoke (BUDGET=smoke)\n")


def test_a_comparison_names_the_budget_as_it_takes_it(recorded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "activation_ablation@full", "activation_ablation"]) == 2
    assert capsys.readouterr().err.endswith("on record: smoke (activation_ablation@smoke)\n")
