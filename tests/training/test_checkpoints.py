"""A checkpoint is whole, ours, or not there."""

import multiprocessing as mp
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.spec import TrialSpec
from harness.training.checkpoints import CheckpointError, Checkpoints

SPEC = TrialSpec(dataset="digits")


def state(epoch: int) -> dict[str, Any]:
    weights = torch.randn(3, 5, generator=torch.Generator().manual_seed(epoch))
    return {"state": {"epoch": epoch, "mean": {"a.b": weights}}, "history": [{"elbo/train": -1.5 * epoch}], "trained_s": 0.1}


def assert_is(found: dict[str, Any], epoch: int) -> None:
    wanted = state(epoch)
    assert torch.equal(found["state"].pop("mean")["a.b"], wanted["state"].pop("mean")["a.b"])
    assert found == wanted


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", "a code")


def file(kept: Checkpoints, epoch: int) -> Path:
    return kept.folder / SPEC.id / f"{epoch:06d}.pt"


def test_what_is_saved_is_loaded(kept: Checkpoints) -> None:
    assert kept.newest(SPEC) == 0
    kept.save(SPEC, 7, state(7))
    assert kept.newest(SPEC) == 7
    assert_is(kept.load(SPEC, 7), 7)
    with pytest.raises(CheckpointError):
        kept.load(SPEC, 6)


def test_two_are_kept(kept: Checkpoints) -> None:
    for epoch in (1, 4, 9):
        kept.save(SPEC, epoch, state(epoch))
    assert {p.stem for p in file(kept, 1).parent.iterdir()} == {"000004", "000009"}
    for epoch in (4, 9):
        assert_is(kept.load(SPEC, epoch), epoch)


def test_a_dropped_trial_leaves_nothing(kept: Checkpoints) -> None:
    other = SPEC.derive(seed=1)
    for spec in (SPEC, other):
        kept.save(spec, 1, state(1))
    kept.discard(SPEC)
    kept.discard(SPEC)
    assert (kept.newest(SPEC), kept.newest(other)) == (0, 1)
    assert [p.name for p in kept.folder.iterdir()] == [other.id]


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [shorten, flip, empty, Path.unlink])
@pytest.mark.parametrize("suffix", [".pt", ".json"])
def test_a_broken_one_is_passed_over(harm: Any, suffix: str, kept: Checkpoints) -> None:
    for epoch in (4, 9):
        kept.save(SPEC, epoch, state(epoch))
    harm(file(kept, 9).with_suffix(suffix))
    assert kept.newest(SPEC) == 4
    assert_is(kept.load(SPEC, 4), 4)
    with pytest.raises(CheckpointError):
        kept.load(SPEC, 9)
    kept.save(SPEC, 9, state(9))  # the trial comes there again
    assert kept.newest(SPEC) == 9


def test_a_foreign_one_counts_as_none(kept: Checkpoints) -> None:
    kept.save(SPEC, 4, state(4))
    other = SPEC.derive(learning_rate=0.5)
    file(kept, 4).parent.rename(kept.folder / other.id)
    assert kept.newest(other) == 0
    (kept.folder / other.id).rename(file(kept, 4).parent)
    assert kept.newest(SPEC) == 4

    assert Checkpoints(kept.folder, "another code").newest(SPEC) == 0
    assert Checkpoints(kept.folder, kept.code, torch_version="1.0").newest(SPEC) == 0
    for suffix in (".pt", ".json"):
        file(kept, 4).with_suffix(suffix).rename(file(kept, 8).with_suffix(suffix))
    assert kept.newest(SPEC) == 0  # of epoch 4, whatever its name


def test_another_codes_later_epochs_do_not_push_out_ours(kept: Checkpoints) -> None:
    old = Checkpoints(kept.folder, "the code before")
    for epoch in (30, 35):
        old.save(SPEC, epoch, state(epoch))
    for epoch in (1, 2, 3):
        kept.save(SPEC, epoch, state(epoch))
        assert kept.newest(SPEC) == epoch
    assert {p.stem for p in file(kept, 1).parent.iterdir()} == {"000002", "000003"}


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def test_a_pickle_that_would_run_code_does_not(kept: Checkpoints, tmp_path: Path) -> None:
    """Even one whose label fits."""
    mark = tmp_path / "ran"
    kept.save(SPEC, 1, {"state": Hostile(mark)})
    assert file(kept, 1).exists()
    assert kept.newest(SPEC) == 0
    with pytest.raises(CheckpointError, match="cannot be read"):
        kept.load(SPEC, 1)
    assert not mark.exists()
    torch.load(file(kept, 1), weights_only=False)
    assert mark.exists()


def test_a_full_disk_leaves_the_one_before(kept: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.save(SPEC, 1, state(1))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        kept.save(SPEC, 2, state(2))
    assert kept.newest(SPEC) == 1
    assert {p.name for p in file(kept, 1).parent.iterdir()} == {"000001.pt", "000001.json"}


def save_for_ever(folder: Path, first: int) -> None:
    kept = Checkpoints(folder, "a code")
    for epoch in range(first, 10**6):
        kept.save(SPEC, epoch, state(epoch) | {"weight": torch.zeros(10**6)})  # so that it is at work on files most of the time


def assert_all_whole(kept: Checkpoints) -> None:
    """Whatever stands under its final name."""
    for path in file(kept, 1).parent.glob("*.pt"):
        with suppress(FileNotFoundError):  # gone since, to make room
            assert "weight" in torch.load(path, weights_only=True)


def test_fifteen_kills_leave_none_unreadable(kept: Checkpoints) -> None:
    """Looked at on the way too, as often as it goes; and nothing that was saved is lost."""
    draw, context, reached = random.Random(0), mp.get_context("fork"), 0
    for _ in range(15):
        process = context.Process(target=save_for_ever, args=(kept.folder, reached + 1), daemon=True)
        process.start()
        until = time.monotonic() + draw.uniform(0.02, 0.12)
        while time.monotonic() < until or kept.newest(SPEC) <= reached:
            assert process.is_alive()
            assert_all_whole(kept)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert_all_whole(kept)
        labelled = [int(path.stem) for path in file(kept, 1).parent.glob("*.json") if path.with_suffix(".pt").exists()]
        found = kept.newest(SPEC)
        assert found == max(labelled) > reached
        whole = kept.load(SPEC, found)
        whole.pop("weight")
        assert_is(whole, found)
        reached = found


def test_one_of_other_images_counts_as_none(kept: Checkpoints) -> None:
    for epoch, images in ((3, "these"), (4, "others")):
        kept.save(SPEC, epoch, state(epoch) | {"images": images})
    assert [kept.newest(SPEC, images) for images in ("these", "others", "third", "")] == [3, 4, 0, 4]
    kept.save(SPEC, 5, state(5))  # of no known images
    assert [kept.newest(SPEC, images) for images in ("others", "")] == [4, 5]
