"""Data files are part of a trial by their bytes: other bytes are another trial, and the same bytes elsewhere the same one."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import noise, write_idx, write_pictures

from harness import catalog, paths, references
from harness.data import load_dataset
from harness.errors import DataError, UserError
from harness.references import files
from harness.spec import TrialSpec
from harness.study import load


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with faces.npz in it, unknown to this process."""
    monkeypatch.setattr(files, "_PLACES", {})
    monkeypatch.setattr(files, "_DIGESTS", {})
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write(Path("faces.npz"))
    return tmp_path / "work"


def write(path: Path, seed: int = 0) -> None:
    np.savez(path, images=noise(200, 6, 5, seed=seed))


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has found no file yet."""
    monkeypatch.setattr(files, "_PLACES", {})


def test_every_form_has_a_reader() -> None:
    assert set(files.FORMS) == set(catalog.DATA_FILES)
    assert all(callable(catalog.load(entry)) for entry in catalog.DATA_FILES.values())


def test_a_file_is_pinned_to_its_bytes_and_not_to_its_place(folder: Path) -> None:
    spec = TrialSpec(dataset="npz:faces.npz")
    assert spec.dataset.startswith("npz:faces.npz@")
    assert references.label(spec.dataset) == "npz:faces.npz"
    shutil.copytree(folder, folder / "elsewhere")
    assert TrialSpec(dataset="npz:elsewhere/faces.npz").id == TrialSpec(dataset=f"npz:{folder}/faces.npz").id == spec.id
    write(Path("elsewhere/faces.npz"), seed=1)
    assert TrialSpec(dataset="npz:elsewhere/faces.npz").id != spec.id
    Path("faces.npz").rename("people.npz")
    assert TrialSpec(dataset="npz:people.npz").id != spec.id


def test_a_folder_is_pinned_to_the_names_and_bytes_of_what_is_read(folder: Path) -> None:
    write_pictures(folder / "pets" / "cat", noise(5, 6, 5))
    first = references.pin_file("images:pets/")
    (folder / "pets" / "notes.txt").write_text("not read")
    assert references.pin_file("images:pets") == first
    shutil.copytree(folder / "pets", folder / "copies" / "pets")
    assert references.pin_file("images:copies/pets") == first
    (folder / "pets" / "cat").rename(folder / "pets" / "dog")
    renamed = references.pin_file("images:pets")
    write_pictures(folder / "pets" / "dog", noise(1, 6, 5, seed=1), start=4)
    assert len({first, renamed, references.pin_file("images:pets")}) == 3


def test_bytes_are_read_again_only_when_the_file_has_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = references.pin_file("npz:faces.npz")
    with monkeypatch.context() as patch:
        patch.setattr(files.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
        assert references.pin_file("npz:faces.npz") == first
    path = folder / "faces.npz"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of equal length
    path.write_bytes(content)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    assert references.pin_file("npz:faces.npz") != first


def test_a_relative_name_is_looked_for_beside_the_study_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deep").mkdir()
    write(folder / "deep" / "faces.npz", seed=1)
    (folder / "deep" / "plan.py").write_text(
        "from harness import Ablation, Budget, TrialSpec\n"
        "STUDY = Ablation(base=TrialSpec(dataset='npz:faces.npz'), arms={'a': {}},\n"
        "                 budgets={'default': Budget(epochs=1, seeds=[0])})\n"
    )
    beside = load("deep/plan.py").study.base.dataset
    assert beside == TrialSpec(dataset="npz:deep/faces.npz").dataset != TrialSpec(dataset="npz:faces.npz").dataset


def test_another_process_finds_the_file_wherever_it_works(folder: Path, tmp_path: Path) -> None:
    spec = TrialSpec(dataset="npz:faces.npz")
    (tmp_path / "spec").write_bytes(pickle.dumps(spec))
    program = (
        "import pickle, sys; from harness import references\n"
        "spec = pickle.load(open('spec', 'rb')); print(spec.id, references.find_file(spec.dataset))"
    )
    other = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert other.stdout.split() == [spec.id, f"{folder}/faces.npz"]
    assert "torch" not in program


def test_a_record_says_where_the_file_lay_and_it_is_found_in_the_working_folder_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TrialSpec(dataset="npz:faces.npz")
    record = references.to_record(spec.references)
    monkeypatch.chdir(tmp_path)
    forget(monkeypatch)
    assert not references.at_hand(spec.dataset)
    references.from_record(record)
    assert references.at_hand(spec.dataset)
    assert references.find_file(spec.dataset) == folder / "faces.npz"
    (tmp_path / "other").mkdir()
    (folder / "faces.npz").rename(tmp_path / "other" / "faces.npz")
    with pytest.raises(DataError, match=rf"npz:faces.npz \([0-9a-f]{{12}}\) is not on this machine: no {folder}/faces.npz or "):
        load_dataset(spec.dataset)
    monkeypatch.chdir(tmp_path / "other")
    assert load_dataset(TrialSpec.from_dict(spec.as_dict()).dataset, pytest.fail).image_shape == (1, 6, 5)


def test_names_that_are_no_text_count_too(folder: Path) -> None:
    write_pictures(folder / "pets", noise(5, 6, 5))
    names = [b"\xff.png", b"\xfe.png"]
    ids = set()
    for name in names:
        (folder / "pets" / "0000.png").replace(folder / "pets" / os.fsdecode(name))
        ids.add(TrialSpec(dataset="images:pets").id)
        (folder / "pets" / os.fsdecode(name)).replace(folder / "pets" / "0000.png")
    assert len(ids) == 2


def test_changed_bytes_are_said_by_name_at_load(folder: Path) -> None:
    spec = TrialSpec(dataset="npz:faces.npz")
    load_dataset(spec.dataset, pytest.fail)
    was = (folder / "faces.npz").stat()
    content = bytearray((folder / "faces.npz").read_bytes())
    content[-1] ^= 1
    (folder / "faces.npz").write_bytes(content)
    os.utime(folder / "faces.npz", ns=(was.st_atime_ns, was.st_mtime_ns))  # length and time are as they were
    with pytest.raises(DataError, match=rf"npz:faces.npz is not what it was: digest \w+ is wanted, {folder}/faces.npz has \w+"):
        load_dataset(spec.dataset)


def test_bytes_that_change_while_they_are_read_are_no_data(folder: Path) -> None:
    write_pictures(folder / "pets", noise(200, 6, 5))
    spec = TrialSpec(dataset="images:pets", dataset_args={"resize": 4})
    load_dataset(spec.dataset, lambda _: None, spec.dataset_args)

    def one_more(said: str) -> None:
        """Add a picture when all have been read, which is then said."""
        write_pictures(folder / "pets", noise(1, 6, 5, seed=1), start=200)

    with pytest.raises(DataError, match=r"images:pets changed while it was read: .*pets had \w{12}, and has \w{12}\n"):
        load_dataset(spec.dataset, one_more, spec.dataset_args)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("npz:face.npz", r"there is no face.npz in .*work\ndid you mean 'faces.npz'"),
        ("npz:", "there is no name in"),
        ("npz:.", "npz: takes an .npz file, .*work is a folder"),
        ("images:faces.npz", "images: takes a folder of .png or .jpeg pictures, .*faces.npz is a file"),
        ("images:.", "work holds none: images: takes a folder of .png or .jpeg pictures"),
        ("idx:.", "work holds none: idx: takes a folder of IDX files"),
        (f"npz:{'a' * 5000}", "is no path: .*File name too long"),
        ("npz:~nobody-of-this-name/faces.npz", "is no path: Could not determine home directory"),
        ("npz:a\0b", "is no path: embedded null byte"),
        ("faces.npz", "an .npz file as 'npz:...', a folder of .png or .jpeg pictures as 'images:...'"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_not_there_is_refused_before_anything_is_loaded(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as fault:
        TrialSpec(dataset=words)
    assert len(str(fault.value).splitlines()) <= 3


@pytest.mark.usefixtures("folder")
def test_arguments_of_files_are_checked_and_part_of_the_id() -> None:
    write_pictures(Path("pets"), noise(5, 6, 5))
    write_idx(Path("scans/images-idx3-ubyte"), noise(5, 6, 5))
    plain = TrialSpec(dataset="images:pets")
    assert plain.dataset_args == {}
    small = plain.derive(**{"dataset_args.resize": [28, 20]})
    assert small == TrialSpec(dataset="images:pets", dataset_args={"resize": (28, 20)})
    assert small == TrialSpec.from_dict(small.as_dict())
    assert len({plain.id, small.id, plain.derive(dataset_args={"resize": 28}).id}) == 3
    assert small.derive(dataset="idx:scans").dataset_args == {}
    for wrong in (0, -3, 2.5, True, "32", (28,), (28, 20, 3), (28, 0)):
        with pytest.raises(UserError, match=r"dataset_args.resize must be a number of pixels, or \(height, width\), got"):
            plain.derive(dataset_args={"resize": wrong})
    for dataset, name in {"npz:faces.npz": "resize", "images:pets": "size", "digits": "resize"}.items():
        with pytest.raises(UserError, match=f"dataset '{dataset}' takes no argument '{name}'"):
            TrialSpec(dataset=dataset, dataset_args={name: 3})


def test_arms_of_other_arguments_are_other_data() -> None:
    from harness import Ablation, Budget

    name = f"{paths.PROJECT}/examples/own_data/shapes.py:shapes"
    with pytest.raises(UserError, match=r"arms are compared on one data set, got dataset_args \{\} and \{'side': 3\}"):
        Ablation(
            base=TrialSpec(dataset=name),
            arms={"a": {}, "b": {"dataset_args": {"side": 3}}},
            budgets={"default": Budget(epochs=1, seeds=[0])},
        )


@pytest.mark.usefixtures("folder")
def test_files_are_for_data_alone() -> None:
    assert not references.is_reference("npz:faces.npz")
    with pytest.raises(UserError, match="unknown likelihood 'npz:faces"):
        TrialSpec(likelihood="npz:faces.npz")


def test_files_that_are_gone_keep_their_name_and_training_alone_asks_for_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = folder / "own.py"
    study.write_text(
        "'''Q?'''\nfrom harness import Ablation, Budget, TrialSpec\nSTUDY = Ablation(base=TrialSpec(dataset='npz:faces.npz'), "
        "arms={'a': {}}, budgets={'default': Budget(epochs=1, seeds=range(2))})\n"
    )
    before = load(str(study)).study
    Path("faces.npz").rename("elsewhere.npz")
    forget(monkeypatch)
    with pytest.raises(UserError, match=r"there is no faces.npz"):
        load(str(study))
    Path("elsewhere.npz").rename("faces.npz")
    load(str(study))
    references.note_pinned([before.base.dataset])
    Path("faces.npz").unlink()
    forget(monkeypatch)
    assert load(str(study)).study == before
    with pytest.raises(DataError, match=r"is not on this machine: no .*faces.npz\nput it there to train on it"):
        load_dataset(before.base.dataset)
    write(Path("faces.npz"), seed=1)
    assert load(str(study)).study != before
