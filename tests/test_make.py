"""What make refuses before anything runs, and what it hands to the shell."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from harness import paths


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make without running recipes."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    command = ["make", "-n", "-o", ".venv/.ready", *arguments]
    return subprocess.run(command, cwd=paths.PROJECT, env=environment, capture_output=True, text=True, check=False)


def test_a_variable_that_no_target_knows_is_refused_with_the_nearest() -> None:
    refused = make("study", "NAME=loss_ablation", "BUGDET=smoke")
    assert refused.returncode == 2
    assert "unknown variable BUGDET=smoke; did you mean BUDGET=?" in refused.stderr
    assert refused.stdout == ""
    assert "unknown variable XYZ=1.  Stop" in make("list", "XYZ=1").stderr


@pytest.mark.parametrize("name", ["loss_ablation", "./a file.py", 'it\'s; echo `x` $$HOME "q"', "loss_ablation[latent=10]"])
def test_values_reach_the_harness_as_they_are(name: str) -> None:
    done = make("study", f"NAME={name}", "SET=latent=10 seeds=range(0,3)", "ARMS=bce,mse", "WORKERS=2")
    assert done.returncode == 0, done.stderr
    typed, program, *words = shlex.split(done.stdout.splitlines()[-1])
    plain = name.replace("$$", "$")
    assert (
        typed == f'HARNESS_COMMAND=make study NAME={plain} BUDGET=default SET="latent=10 seeds=range(0,3)" ARMS="bce,mse" WORKERS=2'
    )
    assert program.endswith("/harness")
    assert words[:2] == ["study", plain]
    assert words[4:10] == ["--set", "latent=10", "--set", "seeds=range(0,3)", "--arms", "bce,mse"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["runs"], ["runs"]),
        (["runs", "NAME=a b", "BUDGET=smoke"], ["runs", "a b", "--budget", "smoke"]),
        (["list", "BUDGET=full"], ["list", "--budget", "full"]),
        (["list", "SCORES=1"], ["list", "--scores"]),
        (["compare", "A=one@smoke", "B=./a folder"], ["compare", "one@smoke", "./a folder"]),
        (["compare", "A=one", "B=two", "OUT=it's here"], ["compare", "one", "two", "--out", "it's here"]),
        (["freeze", "NAME=one"], ["freeze", "one", "--budget", "default"]),
        (["freeze", "NAME=one", "ARMS=a,b", "OUT=x"], ["freeze", "one", "--budget", "default", "--arms", "a,b", "--out", "x"]),
        (["report", "NAME=one", "QUIET=1"], ["report", "one", "--budget", "default", "--quiet"]),
    ],
)
def test_targets_hand_on_what_was_said_and_nothing_else(given: list[str], words: list[str]) -> None:
    done = make(*given)
    assert done.returncode == 0, done.stderr
    typed = shlex.split(done.stdout.splitlines()[-1])
    assert typed[typed.index(".venv/bin/harness") + 1 :] == words


STAYS = ["Makefile", "data/x", "harness/cli/x", "mlruns/x"]
GOES = [".venv/lib/a b", ".venv/.ready", ".venv.deleted/x", "build/site/x"]


def test_clean_says_what_goes_and_what_stays_and_leaves_the_rest(tmp_path: Path) -> None:
    for name in (*STAYS, *GOES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "Makefile").write_text((paths.PROJECT / "Makefile").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / ".venv" / "link").symlink_to("../data")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    for deleted in (".venv .venv.deleted build", "nothing: all is clean"):
        done = subprocess.run(["make", "clean"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        first, second = done.stdout.splitlines()
        assert first == f"deleting: {deleted}"
        assert second.startswith("mlruns/ and data/ stay; the next target that needs .venv sets it up again")
        assert done.stderr == ""
        assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()) == STAYS
        assert not (tmp_path / ".venv").exists()
