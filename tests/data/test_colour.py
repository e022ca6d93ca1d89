"""CIFAR-10 and SVHN, on files made in their formats."""

import io
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from tiny_sets import digests, python_2, write

from harness import catalog, paths
from harness.data import Data, load_dataset, published, sources
from harness.data.published import DIGESTS, folder_of
from harness.data.torchvision_door import torchvision
from harness.errors import DataError

N = 4  # images of a file
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6 * N, 3, 32, 32)).astype(np.uint8)
CLASSES = RNG.integers(0, 10, 6 * N)
BATCHES = {
    name: python_2({"batch_label": "a", "labels": CLASSES[i : i + N].tolist(), "data": IMAGES[i : i + N].reshape(N, -1)})
    for i, name in zip(range(0, 6 * N, N), DIGESTS["CIFAR10"], strict=True)
}


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sets are published with 20 training images, the last of which validate, and no mirror answers."""

    def no_route(folder: str, scratch: Path, raw: Path) -> list[Path]:
        raise OSError("no route to host")

    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    for name in ("cifar10", "svhn"):
        monkeypatch.setitem(catalog.DATASETS, name, replace(catalog.DATASETS[name], validation=N))
    monkeypatch.setattr(sources, "_MIRRORS", dict.fromkeys(("CIFAR10", "SVHN"), no_route))
    monkeypatch.setitem(published.DIGESTS, "CIFAR10", digests(BATCHES, "md5"))


def holds_them_all(data: Data) -> None:
    """Hold a data set against the images and classes."""
    splits = (data.train, data.validation, data.test)
    assert data.image_shape == (3, 32, 32)
    assert [len(split) for split in splits] == [4 * N, N, N]
    assert np.array_equal(np.concatenate([split.levels.numpy() for split in splits]), IMAGES.reshape(6 * N, -1))
    assert np.array_equal(np.concatenate([split.classes.numpy() for split in splits]), CLASSES)


def archive(batches: dict[str, bytes]) -> None:
    """Write CIFAR-10's archive into the data folder."""
    paths.data().mkdir(parents=True, exist_ok=True)
    with tarfile.open(paths.data() / sources.CIFAR10_ARCHIVE, "w:gz", compresslevel=1) as opened:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))


def test_cifar10_is_read_from_its_batches() -> None:
    write(folder_of("CIFAR10"), BATCHES)
    said: list[str] = []
    holds_them_all(load_dataset("cifar10", say=said.append))
    assert said == []


def test_cifar10_is_unpacked_from_its_archive() -> None:
    archive({**BATCHES, "batches.meta": b"", "readme.html": b""})
    said: list[str] = []
    holds_them_all(load_dataset("cifar10", say=said.append))
    assert said == ["getting CIFAR10 from cifar-10-python.tar.gz in the data folder"]
    assert sorted(file.name for file in folder_of("CIFAR10").iterdir()) == sorted(BATCHES)


def test_other_batches_are_refused_before_they_are_unpickled() -> None:
    write(folder_of("CIFAR10"), BATCHES | {"data_batch_3": python_2({"data": 1})})
    with pytest.raises(DataError, match=r"data_batch_3 is not the published file\nexpected md5:\w{32}\ngot      md5:\w{32}"):
        load_dataset("cifar10")


def test_what_cifar10_fails_with_is_said_in_six_lines() -> None:
    archive({name: BATCHES[name] for name in list(BATCHES)[:4]})
    with pytest.raises(DataError) as fault:
        load_dataset("cifar10")
    digests_of = published.DIGESTS["CIFAR10"]
    assert str(fault.value).splitlines()[:4] == [
        "no way to get CIFAR10",
        "tried from cifar-10-python.tar.gz in the data folder: cifar-10-python.tar.gz holds no data_batch_5; "
        "from torchvision's mirrors: no route to host",
        f"put cifar-10-python.tar.gz into {paths.data()}, or these files, or .gz of them, into {folder_of('CIFAR10')}:",
        f"  data_batch_1 {digests_of['data_batch_1']}, data_batch_2 {digests_of['data_batch_2']}",
    ]
    assert len(str(fault.value).splitlines()) == 6


def test_an_image_that_is_published_twice_is_left_out_of_training() -> None:
    twice = pickle.dumps({"labels": [1] * N, "data": IMAGES[-N:].reshape(N, -1)}, protocol=4)
    batches = BATCHES | {"data_batch_1": twice}
    DIGESTS["CIFAR10"] = digests(batches, "md5")
    write(folder_of("CIFAR10"), batches)
    said: list[str] = []
    data = load_dataset("cifar10", say=said.append)
    assert [len(data.train), len(data.test)] == [3 * N, N]
    assert "4 images of the train split are in the test split too" in said[0]


def mat(images: np.ndarray, classes: np.ndarray) -> bytes:
    """Return a file of SVHN with these images, uint8 (N, 3, 32, 32), whose zeros are written as tens."""
    content = io.BytesIO()
    written = {"X": images.transpose(2, 3, 1, 0), "y": np.where(classes == 0, 10, classes).astype(np.uint8)[:, None]}
    savemat(content, written, do_compression=True)
    return content.getvalue()


@pytest.fixture
def house_numbers(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    files = {"train_32x32.mat": mat(IMAGES[:-N], CLASSES[:-N]), "test_32x32.mat": mat(IMAGES[-N:], CLASSES[-N:])}
    monkeypatch.setitem(published.DIGESTS, "SVHN", digests(files))
    md5 = {name.partition("_")[0]: ["", name, digest[4:]] for name, digest in digests(files, "md5").items()}
    monkeypatch.setattr(torchvision().datasets.SVHN, "split_list", md5)
    write(folder_of("SVHN"), files)
    return files


def test_svhn_is_read_from_its_files(house_numbers: dict[str, bytes]) -> None:
    assert 0 in CLASSES
    holds_them_all(load_dataset("svhn"))


def test_other_files_of_svhn_are_refused(house_numbers: dict[str, bytes]) -> None:
    write(folder_of("SVHN"), {"test_32x32.mat": house_numbers["test_32x32.mat"][:-1]})
    with pytest.raises(DataError, match=r"test_32x32\.mat is not the published file\nexpected sha256:"):
        load_dataset("svhn")


def test_published_digests_are_those_that_torchvision_knows() -> None:
    known = torchvision().datasets.CIFAR10
    assert {name: f"md5:{md5}" for name, md5 in known.train_list + known.test_list} == ORIGINAL


ORIGINAL = dict(DIGESTS["CIFAR10"])
