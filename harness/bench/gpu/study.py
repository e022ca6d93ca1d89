"""Whole studies on a GPU: the real command from start to report, and an arm that is killed and goes on.

Run as a program it is the driver of that arm: `python -m harness.bench.gpu.study DEVICE full|toy`.
"""

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

from rich.console import Console

from harness import data, devices, paths
from harness.bench.gpu import environment
from harness.bench.gpu.record import Row
from harness.bench.gpu.setting import Case, Setting
from harness.errors import MachineError
from harness.scores import COST, SCORES, row_of
from harness.scores.rows import ELBO
from harness.spec import TrialSpec
from harness.study import Ablation, Budget, load_study

STUDY = "loss_ablation"
GOALS_S = {"default": 60.0, "full": 180.0}  # from command to report
ARCHIVE_BYTES = 15 * 2**20
SAME = 1e-3  # the largest difference of a test ELBO that rounding may make, relative
VERDICTS = (["yes"], ["no"], ["equal"], ["open"], ["fail"])  # what the lines of a report's verdicts begin with
POLL_S = 0.02


def _check_packages() -> None:
    """Raise MachineError if a package is missing that a study needs."""
    absent = environment.missing()
    if absent:
        raise MachineError(f"needs {', '.join(absent)}: not installed")


# -------------------------------------------------------------------------------- the real command


def study_cases(setting: Setting, budget: str) -> Iterator[Case]:
    """Yield the study of one budget; at toy size the smoke test alone, which goes the same way as the others."""
    if budget == "smoke" or not setting.toy:
        yield budget, partial(study, setting, budget)


def study(setting: Setting, budget: str) -> list[Row]:
    """Return the seconds from command to report in a fresh home with nothing compiled, the plan and the verdicts.

    The report and both databases go into an archive in the folder of the results.

    Raises:
        MachineError: a package is missing.
        RuntimeError: the command failed.
    """
    _check_packages()
    command = ["-m", "harness.cli", "study", STUDY, "--budget", budget, "--device", setting.device_name]
    started = time.perf_counter()
    said = _lines([sys.executable, *command], _home(setting, "study"))
    seconds = time.perf_counter() - started
    name = f"{STUDY}, {budget}"
    unit = "s from command to report"
    goal = GOALS_S.get(budget)
    timed = setting.judged(name, seconds, unit, goal) if goal else Row(name, f"{seconds:.1f} {unit}")
    plan = [Row("plan", line) for line in said if " trials to run on " in line]
    verdicts = [Row("verdict", line.strip()) for line in said if line.split(maxsplit=1)[:1] in VERDICTS]
    return [timed, *plan, *verdicts, _archive(_home(setting, "study"), setting.out / f"study_{budget}.tar.gz")]


def _home(setting: Setting, name: str) -> Path:
    """Return a home folder in the step's scratch."""
    return setting.scratch / name


def _environment(home: Path) -> dict[str, str]:
    """Return the environment of a study in this home, with the data sets of this process."""
    return os.environ | {"HARNESS_HOME": str(home), "HARNESS_DATA": str(paths.data()), "COLUMNS": "160"}


def _lines(command: Sequence[str], home: Path) -> list[str]:
    """Run a command and return its lines, which are shown as they come.

    Raises:
        RuntimeError: it ended with another exit code than 0.
    """
    process = subprocess.Popen(
        command, env=_environment(home), cwd=paths.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        print(line, end="", flush=True)
        said.append(line.rstrip())
    if process.wait():
        last = next((line for line in reversed(said) if line.strip()), "without a word")
        raise RuntimeError(f"exit code {process.returncode}: {last}")
    return said


def _archive(home: Path, file: Path) -> Row:
    """Pack databases and reports of a home into one file, or only the databases if that is too large. Say what is in it."""
    everything = sorted((home / "mlruns").glob("*.db")) + sorted(p for p in (home / "mlruns" / "reports").rglob("*") if p.is_file())
    for content in (everything, [p for p in everything if p.suffix == ".db"]):
        with tarfile.open(file, "w:gz") as archive:
            for path in content:
                archive.add(path, path.relative_to(home))
        size = file.stat().st_size
        if size <= ARCHIVE_BYTES:
            return Row("archive", f"{file.name}: {len(content)} files, {size / 2**20:.1f} MiB")
    file.unlink()
    return Row("archive", f"left out: the databases take {size / 2**20:.1f} MiB")


# -------------------------------------------------------------------------------- an arm that is killed


def resume_cases(setting: Setting) -> Iterator[Case]:
    """Yield an arm of the full length, undisturbed and killed once."""
    yield "killed once", lambda: killed_once(setting)


def arm(toy: bool) -> Ablation:
    """Return the first arm of the study at its full length, with two seeds and scored quickly; at toy size one small model."""
    plan = load_study(STUDY)
    assert isinstance(plan, Ablation)
    if toy:
        base = TrialSpec(dataset="digits", network="mlp", hidden=(32,), batch_size=128)
        return Ablation(base=base, arms={"bce": {}}, budgets={"default": Budget(epochs=24, seeds=range(1))})
    full, name = plan.budgets["full"], next(iter(plan.arms))
    budget = Budget(epochs=full.epochs, seeds=full.seeds[:2])
    return Ablation(base=plan.base, arms={name: plan.arms[name]}, budgets={"default": budget})


def killed_once(setting: Setting) -> list[Row]:
    """Return how far the scores of an arm whose driver was killed and started again are from those of one that was left alone.

    Raises:
        MachineError: a package is missing.
        RuntimeError: a driver failed, or ended before it could be killed.
    """
    _check_packages()
    command = [sys.executable, "-m", "harness.bench.gpu.study", setting.device_name, "toy" if setting.toy else "full"]
    alone, killed = _home(setting, "alone"), _home(setting, "killed")
    _lines(command, alone)
    epochs = arm(setting.toy).budgets["default"].epochs
    process = subprocess.Popen(command, env=_environment(killed), cwd=paths.PROJECT)
    while (epoch := _newest(killed)) < epochs // 3 and process.poll() is None:
        time.sleep(POLL_S)
    process.kill()
    if process.wait() >= 0:
        raise RuntimeError(f"the driver ended with exit code {process.returncode} before it could be killed")
    left = _newest(killed)
    _lines(command, killed)
    return compared(_scores(alone), _scores(killed), f"killed after the checkpoint of epoch {max(epoch, left)} of {epochs}")


def _newest(home: Path) -> int:
    """Return the epoch of the newest checkpoint in a home, or 0."""
    return max((int(p.stem) for p in (home / "mlruns" / "checkpoints").rglob("*.pt") if p.stem.isdecimal()), default=0)


def _scores(home: Path) -> Mapping[str, Mapping[str, float]]:
    """Return the scores by trial that the driver has left in a home."""
    scores: Mapping[str, Mapping[str, float]] = json.loads((home / "scores.json").read_text(encoding="utf-8"))
    return scores


def compared(alone: Mapping[str, Mapping[str, float]], killed: Mapping[str, Mapping[str, float]], more: str) -> list[Row]:
    """Return the largest differences of the scores by trial: of the test ELBO, which is judged, and of any.

    They are relative to the score, or absolute where it is below 1.
    """
    if alone.keys() != killed.keys():
        return [Row("trials", f"{len(killed)} of {len(alone)} are on record; {more}", "all", False)]
    apart: dict[str, float] = {}
    for trial, scores in alone.items():
        for metric, score in scores.items():
            row = row_of(metric, SCORES)
            if row is None or row.group != COST:  # the cost may differ between two runs of the same trial
                difference = abs(killed[trial].get(metric, float("inf")) - score) / max(1.0, abs(score))
                apart[metric] = max(apart.get(metric, 0.0), difference)
    elbo, worst = apart[ELBO.key], max(apart, key=lambda m: apart[m])
    words = f"{elbo:.1e} apart; {more}"
    return [
        Row(f"test ELBO of {len(alone)} trials", words, f"at most {SAME:g}", elbo <= SAME),
        Row(f"all {len(apart)} scores", f"{apart[worst]:.1e} apart at most, by {worst}"),
    ]


def drive(device: str, toy: bool) -> None:
    """Train what is missing of the arm, in this process with a checkpoint every second, and leave the scores in the home folder."""
    from harness.executors import Saving, local, train
    from harness.runner.board import Board
    from harness.runner.room import Setting
    from harness.runner.session import Session, run
    from harness.runner.study_store import StudyStore
    from harness.tracking import MlflowTracker

    plan, torch_device = arm(toy), devices.named(device)
    images = data.load_dataset(plan.base.dataset, arguments=plan.base.dataset_args)
    session = Session(
        store=StudyStore("killed_once", "default", MlflowTracker("killed_once", "default", ""), ""),
        board=Board(Console(width=160)),
        gather=lambda: Setting(data=images, device=torch_device, workers=[device]),
        executor="local",
        origin={"device": devices.describe(torch_device), "dataset.digest": images.digest},
    )
    saving = Saving(every_s=0.0 if toy else 1.0, share=float("inf"))
    with patch.object(local, "train", partial(train, saving=saving)):  # an arm may take less than the usual time to a checkpoint
        results, _, _ = run(session, plan)
    scores = {trial: dict(record.metrics) for trial, record in results.records.items()}
    (paths.home() / "scores.json").write_text(json.dumps(scores), encoding="utf-8")


if __name__ == "__main__":
    drive(sys.argv[1], sys.argv[2] == "toy")
