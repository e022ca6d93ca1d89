"""Full disks: said before the start where it can be known, and else a clean stop that the same command goes on from."""

import errno
import io
import os
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from homes import home_at
from mlflow.store.artifact import local_artifact_repo
from rich.console import Console

from harness import cli, paths
from harness.executors import evaluation, parts
from harness.queue import TrialStore
from harness.runner import commands, disk, outcome
from harness.spec import TrialSpec
from harness.stores import space
from harness.stores.space import MEBI, DiskFullError, full_in_words, is_full
from harness.training import checkpoints
from harness.training.checkpoints import Checkpoints

STUDY = '''"""Is it so?"""
from harness.spec import TrialSpec
from harness.study import Ablation, Budget

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden={hidden}, batch_size=600),
    arms={{"bce": {{}}, "mse": {{"likelihood": "mse"}}}},
    budgets={{"default": Budget(epochs=2, seeds=range(1), evaluation="quick")}},
)
'''
GOES_ON = "once there is room, the same command goes on where it left off"


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_store: Path) -> Callable[[], str]:
    """`harness study small --executor local`, which returns what it printed, in a home that has its empty stores."""
    (tmp_path / "small.py").write_text(STUDY.format(hidden=(8,)))
    monkeypatch.setattr(paths, "studies", lambda: tmp_path)

    def go() -> str:
        said = io.StringIO()
        commands.run_study("small", "default", "cpu", 1, Console(file=said, width=200), executor="local")
        return said.getvalue()

    return go


def states(home: Path) -> Counter[str]:
    with closing(sqlite3.connect(home / "mlruns" / "optuna.db")) as connection:
        return Counter(state for (state,) in connection.execute("SELECT state FROM trials"))


def runs(home: Path) -> Counter[str]:
    question = "SELECT status FROM runs JOIN tags USING (run_uuid) WHERE key = 'kind' AND value = 'trial'"
    with closing(sqlite3.connect(home / "mlruns" / "mlflow.db")) as connection:
        return Counter(status for (status,) in connection.execute(question))


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_quota(*_: object, **__: object) -> None:
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def torn_zip(*_: object, **__: object) -> None:
    """As torch.save does on a full disk: two errors without a number."""
    try:
        raise RuntimeError("basic_ios::clear: iostream error")
    finally:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


def full_database(*_: object, **__: object) -> None:
    """As Optuna does: SQLite's words are in the exception that it came of."""
    try:
        raise sqlite3.OperationalError("database or disk is full")
    except sqlite3.OperationalError as fault:
        raise optuna.exceptions.StorageInternalError("This typically happens due to invalid data in the commit") from fault


PLACES = {
    "row30-in-the-trial-database": (TrialStore, "claim", full_database),
    "row30-in-a-checkpoint": (checkpoints, "_replace", no_space),
    "row30-in-the-files-of-a-result": (evaluation.torch, "save", torn_zip),
    "row30-in-an-artifact": (local_artifact_repo, "shutil_copytree_without_file_permissions", no_quota),
    "row30-as-the-result-is-told": (TrialStore, "complete", full_database),
    "row30-in-the-report": (outcome.report, "publish", no_space),
}


@pytest.mark.slow
def test_c16_wherever_the_disk_is_full_the_study_stops_and_the_same_command_goes_on(
    start: Callable[[], str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One study, whose starts meet a full disk at one place after another; no trial fails by it."""
    monkeypatch.setattr("harness.executors.local.train", saving_each_epoch)
    monkeypatch.setattr("matplotlib.figure.Figure.draw", lambda *_: None)  # as `unpainted`; sizes of files are the next test's
    for place, (owner, name, fault) in PLACES.items():
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fault)
            with pytest.raises(DiskFullError) as stop:
                pytest.fail(f"{place}: {start()}")
        words = str(stop.value)
        assert stop.value.exit_code == 4
        assert GOES_ON in words, place
        assert str(home / "mlruns") in words
        assert len(words.splitlines()) <= 6
        assert not states(home)["FAIL"], place
        assert not runs(home)["FAILED"], place
    assert "nothing to do" in start()
    assert states(home) == {"COMPLETE": 2}
    assert runs(home)["FINISHED"] == 2
    assert not runs(home)["RUNNING"]


def saving_each_epoch(*arguments: object) -> Iterator[object]:
    from harness.executors.training import train

    return train(*arguments, saving=parts.Saving(every_s=0.0, share=float("inf")))  # type: ignore[arg-type]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_c16_a_disk_that_fills_while_trials_train(small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody else fills the disk at the first row; after that is mended the study ends, and took what was estimated."""
    from harness.data import load_dataset
    from harness.tracking import MlflowTracker

    study = tmp_path / "small.py"
    study.write_text(STUDY.format(hidden=(8,)))
    log, ballast = MlflowTracker.log, small_disk / "ballast"

    def fill_then_log(*arguments: object) -> None:
        with ballast.open("ab", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    break
        log(*arguments)  # type: ignore[arg-type]

    with home_at(small_disk) as patch:
        command = ["study", str(study), "--executor", "local"]
        patch.setattr(MlflowTracker, "log", fill_then_log)
        assert cli.main(command) == 4
        assert GOES_ON in capsys.readouterr().err
        patch.setattr(MlflowTracker, "log", log)
        assert cli.main(command) == 4
        ballast.unlink()
        assert cli.main(command) == 0
        assert states(small_disk) == {"COMPLETE": 2}
        assert cli.main(["verify", str(study)]) == 0
    spec = TrialSpec(dataset="digits", network="mlp", hidden=(8,), batch_size=600, epochs=2)
    took = sum(f.stat().st_blocks * 512 for f in small_disk.rglob("*") if f.is_file())
    assert took <= disk.estimate([spec], load_dataset("digits"), 2, 1).kept <= 3 * took


def test_row30_a_study_that_cannot_fit_is_refused_before_anything_is_written(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two trials of 2.2 million parameters on 16 MB."""
    (tmp_path / "large.py").write_text(STUDY.format(hidden=(1024, 1024)))
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 16 * MEBI)
    assert cli.main(["study", str(tmp_path / "large.py"), "--executor", "local"]) == 4
    said = capsys.readouterr().err
    for words in (str(home / "mlruns"), "has 16 MiB free", "2 trials take about ", "make room"):
        assert words in said
    assert len(said.splitlines()) <= 6
    assert not home.exists()


def test_row30_files_behind_a_link_are_counted(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (tmp_path / "large disk").mkdir()
    (home / "mlruns").symlink_to(tmp_path / "large disk")
    assert disk.at_least(4).kept == 4 * disk.TRIAL


def test_row30_an_estimate_counts_weights_checkpoints_and_epochs() -> None:
    from harness.data import load_dataset

    digits = load_dataset("digits")
    spec = TrialSpec(dataset="digits", network="mlp", hidden=(256,), epochs=10)
    weights = 4 * sum(a * b + b for a, b in ((64, 256), (256, 2 * spec.latent), (spec.latent, 256), (256, 64)))
    one = disk.estimate([spec], digits, 1, 1)
    two = disk.estimate([spec], digits, 2, 1)
    assert two.kept - one.kept == weights + disk.TRIAL + 10 * disk.EPOCH
    assert one.passing == disk.CHECKPOINTS * 3 * weights  # Adam keeps two tensors more for each of its parameters
    assert disk.estimate([spec.derive(ema_decay=0.9)], digits, 1, 1).passing == disk.CHECKPOINTS * 4 * weights
    assert disk.estimate([spec], digits, 8, 4).passing == 4 * one.passing


@pytest.mark.parametrize(("free", "word"), [(99, "has 99 MiB free"), (120, "careful"), (130, "")], ids=lambda v: f"row30-{v}")
def test_what_is_said_of_the_room(free: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda folder: free * MEBI)
    need = disk.Need(7, 90 * MEBI if free == 130 else 100 * MEBI)
    if free < 100:
        with pytest.raises(disk.MachineError, match=word):
            disk.check(need, tmp_path)
    else:
        assert disk.check(need, tmp_path).startswith(word)
        assert bool(word) == bool(disk.check(need, tmp_path))


def test_row30_a_folder_for_temporary_files_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 100 * MEBI if folder == tmp_path else 3)
    with pytest.raises(disk.MachineError, match="TMPDIR"):
        disk.check(disk.Need(1, MEBI), tmp_path)


def test_row30_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(space.tempfile, "gettempdir", none)
    with pytest.raises(disk.MachineError, match="TMPDIR"):
        space.temporary()


def test_other_faults_are_not_taken_for_a_full_disk() -> None:
    with pytest.raises(OSError, match="denied"), full_in_words():
        raise PermissionError(errno.EACCES, "denied")
    assert not is_full(ValueError("no"))


def test_row30_a_checkpoint_that_found_no_room_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, store = TrialSpec(dataset="digits"), Checkpoints(tmp_path)
    store.save(spec, 1, {"epoch": 1})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, "fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            store.save(spec, 2, {"epoch": 2})
    assert store.newest(spec) == 1
    assert not list(tmp_path.rglob("*.new"))
