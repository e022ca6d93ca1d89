import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness import cli, study

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
