import io
import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import cli, resources, study, tracking
from harness.cli import listing
from harness.cli.command import emit
from harness.cli.parsing import GROUPS
from harness.runner.before import STATED_EPOCH_S, of_trials, times
from harness.runner.costs import NEXT_S, Before
from harness.scores.rows import TRAIN_S
from harness.tracking import RunOnRecord

LONGEST = 6  # lines of an error message, beside a listing of the studies

FAULTS = {
    "no name": (["study"], 2, "which study? make study NAME="),
    "no name to report": (["report"], 2, "which study? make report NAME="),
    "wrong name": (["study", "loss_ablaton"], 2, "did you mean 'loss_ablation'"),
    "wrong budget": (["study", "loss_ablation", "--budget", "smok"], 2, "unknown budget 'smok'; did you mean 'smoke'"),
    "unknown option": (["study", "loss_ablation", "--epochs", "3"], 2, "unrecognized arguments: --epochs 3"),
    "unknown command": (["studdy"], 2, "studdy"),
    "unknown device": (["study", "loss_ablation", "--device", "gpu"], 2, "unknown device 'gpu'; did you mean 'cuda'?"),
    "almost a device": (["study", "loss_ablation", "--device", "cdua:1"], 2, "unknown device 'cdua:1'; did you mean 'cuda'?"),
    "wrong name for the doctor": (["doctor", "loss_ablaton"], 2, "did you mean 'loss_ablation'"),
    "wrong budget for the doctor": (["doctor", "loss_ablation", "--budget", "smok"], 2, "did you mean 'smoke'"),
    "nothing of a study on record": (["doctor", "loss_ablation"], 2, "make study NAME=loss_ablation BUDGET=default"),
    "nothing on record": (["doctor"], 2, "no trial is on record\nmake study NAME=..."),
    "no workers": (["study", "loss_ablation", "--device", "cpu", "--workers", "0"], 2, "WORKERS=0"),
    "too many workers": (["study", "loss_ablation", "--device", "cpu", "--workers", "100000"], 2, "WORKERS=100000"),
    "unknown executor": (["study", "loss_ablation", "--executor", "rey"], 2, "unknown executor 'rey'; did you mean 'ray'"),
    "unknown storage": (["study", "loss_ablation", "--storage", "mysql://localhost/x"], 2, "STORAGE: unknown scheme 'mysql'"),
    "a name as a file": (["study", "loss_ablation.py"], 2, "no file loss_ablation.py, but a study of that name: "),
    "another verb": (["run", "loss_ablation"], 2, "harness: unknown command 'run'; did you mean 'runs'?\nknown: study, "),
    "spaces between arms": (["study", "loss_ablation", "--arms", "bce mse"], 2, "commas are between arms: bce,mse"),
    "half a worker": (["study", "loss_ablation", "--workers", "1.5"], 2, "--workers: a whole number is needed, got '1.5'"),
    "a notebook": (["study", "pyproject.toml"], 2, "pyproject.toml: a study's file ends in .py"),
    "workers in words": (["study", "loss_ablation", "--workers", "two"], 2, "two"),
    "port in words": (["ui", "--port", "http"], 2, "http"),
    "unknown data set": (["data", "mnits"], 2, "did you mean 'mnist'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_slip_is_told_in_a_few_lines_before_anything_is_written(
    name: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, code, message = FAULTS[name]
    assert cli.main(arguments) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("harness: ")
    assert "Traceback" not in said.err
    listed = [line for line in said.err.splitlines() if line.split()[:1] and line.split()[0] in study.names()]
    assert len(said.err.splitlines()) - len(listed) <= LONGEST
    assert said.out == ""
    assert not (home / "mlruns").exists()


def test_without_a_name_studies_are_listed_with_their_questions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study"]) == 2
    said = capsys.readouterr().err
    assert all(name in said and study.load(name).question in said for name in study.names())
    assert study.questions() in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_here_is_no_silent_fallback(device: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "loss_ablation", "--device", device]) == 4
    said = capsys.readouterr().err
    assert f"DEVICE={device}: no CUDA GPU here" in said
    assert "DEVICE=cpu" in said
    assert not (home / "mlruns").exists()


def test_as_a_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "study", "los_ablation"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "did you mean 'loss_ablation'" in done.stderr
    assert "Traceback" not in done.stderr


def test_memory_is_not_tidied_at_the_end_of_the_process() -> None:
    """What the garbage collector is told at the end; functions registered before `main` run after its own."""
    look = "atexit.register(lambda: print(gc.get_freeze_count() > 10_000))"
    program = f"import atexit, gc; {look}; from harness import cli; cli.main(['list'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"


def test_digits_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "digits"]) == 0
    said = capsys.readouterr().out
    assert "digits: train 1,197, validation 300, test 300 images, grey, 8 x 8 (height x width)" in said
    assert "levels: 0 to 255, 17 of 256 occur; 48." in said
    assert "classes: 10 (0: 178, 1: 182" in said
    assert "equal images: none" in said
    sheet = Path(said.splitlines()[-1].removeprefix("some of them: "))
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_commands_and_options_are_frozen() -> None:
    """A change here is a change for users: of the README, the Makefile and people's scripts."""
    (commands,) = (a.choices for a in cli.parser()._actions if a.dest == "command")
    options = {
        name: sorted(s for a in sub._actions for s in (a.option_strings or [a.dest]) if s not in ("-h", "--help", "--debug"))
        for name, sub in commands.items()
    }
    assert options == {
        "study": [
            "--anew",
            "--arms",
            "--budget",
            "--device",
            "--executor",
            "--quiet",
            "--set",
            "--storage",
            "--workers",
            "--workers-per-gpu",
            "name",
        ],
        "report": ["--arms", "--budget", "--quiet", "--set", "--storage", "name"],
        "compare": ["--json", "--out", "a", "b"],
        "freeze": ["--arms", "--budget", "--out", "--set", "--storage", "name"],
        "plan": ["--arms", "--budget", "--from", "--json", "--set", "--storage", "name"],
        "runs": ["--budget", "--json", "name"],
        "verify": ["--budget", "--json", "--storage", "name"],
        "replay": ["--budget", "--runs", "name"],
        "doctor": ["--arms", "--budget", "--json", "--set", "name"],
        "list": ["--budget", "--json", "--names", "--scores"],
        "init": ["name"],
        "data": ["--json", "--set", "dataset"],
        "ui": ["--port"],
        "bench": ["kind"],
        "completion": ["shell"],
        "help": ["about"],
    }
    (kinds,) = (a.choices for a in commands["bench"]._actions if a.dest == "kind")
    assert {
        name: sorted(s for a in sub._actions for s in (a.option_strings or [a.dest]) if s not in ("-h", "--help", "--debug"))
        for name, sub in kinds.items()
    } == {
        "ladder": ["--device", "--rounds", "--threads"],
        "compare": ["--device", "--markdown", "--no-counts", "base"],
        "counts": ["--device", "--refresh"],
        "history": [],
        "gpu": ["--device", "--minutes", "--only", "--out", "--toy"],
        "study": ["--budget", "name"],
    }


COMMANDS = {command.name: command for commands in GROUPS.values() for command in commands}


def helped(name: str, capsys: pytest.CaptureFixture[str], width: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", width)
    with pytest.raises(SystemExit) as end:
        cli.main([*([name] if name else []), "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_s_help_has_examples_that_can_be_typed(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said, examples = helped(name, capsys, "80", monkeypatch), COMMANDS[name].examples
    assert 2 <= len(examples) <= 4
    for example in examples:
        words = shlex.split(example.partition(" >")[0])
        options = cli.parser().parse_args(words)
        assert options.command == words[0] == name
        assert f"  harness {example}\n" in said
        if getattr(options, "name", "") == "loss_ablation":
            study.check("loss_ablation", getattr(options, "budget", None) or "default")
    plain = said.partition("examples:")[0]
    assert max(map(len, plain.splitlines())) <= 80


def test_the_help_of_all_is_what_help_prints_and_what_comes_without_a_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = helped("", capsys, "80", monkeypatch)
    assert max(map(len, whole.splitlines())) <= 80
    assert all(f"\n  {name} " in whole for name in COMMANDS)
    for words in (["help"], ["help", "study"]):
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        assert end.value.code == 0
        assert capsys.readouterr().out == (whole if len(words) == 1 else helped("study", capsys, "80", monkeypatch))
    assert cli.main([]) == 2
    assert capsys.readouterr().err == f"harness: which COMMAND?\n{whole}\n"
    assert cli.main(["help", "studdy"]) == 2
    assert "did you mean 'study'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if "--json" in command.more])
def test_a_document_is_documented(name: str) -> None:
    assert "--json" in cli.parser().parse_args([name, *["x"] * (name == "verify"), "--json"]).chosen.more


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh", "fish"])
def test_a_shell_completes_commands_options_and_studies(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert "harness list --names" in script
    assert "echo smoke default full" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_names_are_listed_for_scripts_without_loading_a_study(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "load", lambda _: pytest.fail("a study was loaded"))
    assert cli.main(["list", "--names"]) == 0
    assert capsys.readouterr().out.split() == study.names()


def test_scores_are_listed_with_their_tiers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--scores", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["scores"]
    assert {row["key"] for row in rows} == {key for key, row in study.SCORES.items() if row.better}
    assert {"key": "test/elbo", "better": "higher", "tier": "A"}.items() <= next(r for r in rows if r["key"] == "test/elbo").items()


def test_a_data_set_as_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "digits", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {k: told[k] for k in ("name", "channels", "height", "width", "train", "validation", "test", "equal")} == {
        "name": "digits", "channels": 1, "height": 8, "width": 8, "train": 1197, "validation": 300, "test": 300, "equal": 0,
    }  # fmt: skip
    assert sum(told["classes"].values()) == 1797
    assert sum(told["levels"].values()) == 1797 * 64
    assert Path(told["picture"]).is_file()


def test_numbers_that_json_has_no_word_for_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": [float("nan"), float("inf"), 1.5], "b": (None, "é")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5], "b": [None, "é"]}


# -------------------------------------------------------------------------------- what a study costs here


def a_run(of: str, budget: str, seconds: float, training: float, **tags: str) -> RunOnRecord:
    here = {"host": socket.gethostname(), "device": resources.cpu()}
    given = {"study": of, "budget": budget, "arm": "bce", **here, **tags}
    metrics = {TRAIN_S.key: training}
    return RunOnRecord(run="r", status="FINISHED", begun=0, ended=round(seconds * 1000), tags=given, metrics=metrics)


def costs(runs: list[RunOnRecord], monkeypatch: pytest.MonkeyPatch, home: Path, name: str) -> dict[str, dict[str, Any]]:
    (home / "mlruns").mkdir(parents=True, exist_ok=True)
    (home / "mlruns" / "mlflow.db").touch()
    monkeypatch.setattr(tracking, "runs_on_record", lambda study, budget: runs)
    monkeypatch.setattr(resources, "cores", lambda: 4)
    (found,) = (row for row in listing.as_dict("")["studies"] if row["name"] == name)
    return {cost["budget"]: cost for cost in found["budgets"]}


def test_trials_are_expected_to_take_what_those_on_record_took(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    (home / "mlruns").mkdir(parents=True, exist_ok=True)
    (home / "mlruns" / "mlflow.db").touch()
    monkeypatch.setattr(resources, "cores", lambda: 4)
    (spec,) = (c.spec for c in study.load("loss_ablation").study.cells("smoke")[:1])
    runs = [a_run("loss_ablation", "smoke", s, 2) for s in (5, 5, 99)] + [a_run("loss_ablation", "smoke", 7, 1, host="elsewhere")]
    monkeypatch.setattr(tracking, "runs_on_record", lambda study, budget: runs)
    kinds = {"bce": spec, "mixture": spec.derive(likelihood="logistic_mixture")}
    found = of_trials("loss_ablation", "smoke", resources.cpu(), 1, kinds)
    assert found == Before({"bce": 2.0}, {"bce": 5 - 2 - NEXT_S})
    monkeypatch.setattr(tracking, "runs_on_record", lambda study, budget: [])
    stated = of_trials("loss_ablation", "smoke", resources.cpu(), 1, kinds)
    assert stated.epoch_s["bce"] == STATED_EPOCH_S
    assert stated.epoch_s["mixture"] > 10 * STATED_EPOCH_S
    assert stated.times["mixture"] > stated.times["bce"] == 1
    assert times(spec.derive(network="conv", latent=20)) > times(spec.derive(network="conv")) > times(spec)
    assert of_trials("loss_ablation", "smoke", resources.cpu(), 1, {"bce": spec.derive(dataset="digits")}) == Before()


def test_a_budget_costs_what_its_trials_took_or_those_of_another_budget(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """36 trials by 4 cores are 9 rounds; an epoch takes 2 s, and 3 s come beside them."""
    monkeypatch.setattr(resources, "cores", lambda: 4)
    smoke, other = a_run("loss_ablation", "smoke", 5, 2), a_run("loss_ablation", "smoke", 999, 2, host="elsewhere")
    found = costs([smoke, other], monkeypatch, home, "loss_ablation")
    assert (found["smoke"]["basis"], found["smoke"]["seconds"]) == ("this budget", listing.START_S + 2 * 5)
    assert (found["default"]["basis"], found["default"]["seconds"]) == ("another budget", listing.START_S + 9 * (3 + 6 * 2))
    assert (found["default"]["trials"], found["default"]["epochs"], found["default"]["at_least"]) == (36, 6, False)
    assert (found["full"]["seconds"], found["full"]["at_least"]) == (listing.START_S + 9 * (3 + 50 * 2), True)


def test_without_a_record_images_like_mnist_have_a_stated_rate_and_others_none(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert costs([], monkeypatch, home, "loss_ablation")["default"]["basis"] == "stated rate"
    assert (costs([], monkeypatch, home, "colour")["default"]["seconds"], home.exists()) == (None, True)


def test_a_file_that_cannot_be_loaded_is_listed_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text('"""Is it so?"""\nSTUDY = input()\n')
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert cli.main(["list"]) == 0
    said = capsys.readouterr().out
    assert "Is it so?\n" in said
    assert f"(cannot be loaded: {tmp_path / 'mine.py'}:2: a study file must not ask" in said
    assert "loss_ablation" in said
    assert cli.main(["list", "--budget", "smokee"]) == 2
    assert "did you mean 'smoke'" in capsys.readouterr().err
