"""Damaged, swapped and missing files of every data set, and images that nothing can be learned from: refused, and nothing written.

Each set is as small as a test can have it, in its published format and with its own digests; then one thing is changed.
"""

import gzip
import hashlib
import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from pictures import noise, write_idx, write_pictures
from refusals import LONGEST, assert_refused, fingerprint, run
from scipy.io import savemat
from tiny_sets import digests, idx_files, python_2, write

from harness import catalog, cli, paths
from harness.data import arrays, load_dataset, published, sources
from harness.data.published import DIGESTS, folder_of
from harness.data.torchvision_door import torchvision

RNG = np.random.default_rng(0)
GREY = torch.from_numpy(RNG.integers(0, 256, (9, 784)).astype(np.uint8))
COLOUR = RNG.integers(0, 256, (24, 3, 32, 32)).astype(np.uint8)
Files = dict[str, bytes]
Change = Callable[[bytes], bytes]


def batches() -> Files:
    rows = COLOUR.reshape(24, -1)
    return {n: python_2({"labels": [0] * 4, "data": rows[4 * i : 4 * i + 4]}) for i, n in enumerate(DIGESTS["CIFAR10"])}


def matlab() -> Files:
    files = {}
    for name, images in zip(DIGESTS["SVHN"], (COLOUR[:20], COLOUR[20:]), strict=True):
        content = io.BytesIO()
        savemat(content, {"X": images.transpose(2, 3, 1, 0), "y": np.ones((len(images), 1), np.uint8)})
        files[name] = content.getvalue()
    return files


IDX = idx_files(GREY[:7], GREY[7:])
SETS: Mapping[str, tuple[str, Callable[[], Files]]] = {
    "mnist": ("MNIST", lambda: IDX),
    "fashion_mnist": ("FashionMNIST", lambda: IDX),
    "kmnist": ("KMNIST", lambda: {f"{name}.gz": gzip.compress(content) for name, content in IDX.items()}),
    "cifar10": ("CIFAR10", batches),
    "svhn": ("SVHN", matlab),
}
# What is done to the bytes of a file, by name: of whatever format they are, for the digest is what they are held against.
BYTES: Mapping[str, Change] = {
    "flipped-byte": lambda b: b[:-1] + bytes([b[-1] ^ 1]),
    "one-byte-short": lambda b: b[:-1],
    "half": lambda b: b[: len(b) // 2],
    "empty": lambda b: b"",
    "junk-behind": lambda b: b + b"junk",
    "other-magic": lambda b: b"BAD!" + b[4:],
    "other-lengths": lambda b: b[:4] + struct.pack(">i", 10**6) + b[8:],
    "other-values": lambda b: b[:8] + bytes([200]) * (len(b) - 8),
    "broken-gzip": lambda b: gzip.compress(b)[:-9],
}


def no_route(folder: str, scratch: Path, raw: Path) -> list[Path]:
    raise OSError("no route to host")


def refused(capsys: pytest.CaptureFixture[str], home: Path, data: str, code: int, *says: str) -> None:
    """`harness data` refuses a set as it should, and neither its home nor the data folder has changed."""
    places = [home, paths.data()]
    before = [fingerprint(place) for place in places]
    assert cli.main(["data", data]) == code
    told = capsys.readouterr()
    assert told.err.startswith("harness: ")
    for words in says:
        assert words in told.err, told.err
    assert len(told.err.strip().splitlines()) <= LONGEST, told.err
    assert [fingerprint(place) for place in places] == before


@pytest.fixture(params=list(SETS))
def published_set(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path, Files]:
    """A tiny set whose digests are the published ones and whose files lie where they belong; no mirror answers."""
    name: str = request.param
    folder, make = SETS[name]
    files = make()
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(catalog.DATASETS, name, replace(catalog.DATASETS[name], validation=3))
    monkeypatch.setattr(sources, "_by_torchvision", no_route)
    monkeypatch.setattr(sources, "_MIRRORS", dict.fromkeys(("CIFAR10", "SVHN"), no_route))
    monkeypatch.setattr(sources, "_PACKAGES", {})
    monkeypatch.setitem(published.DIGESTS, folder, digests(files))
    if name == "svhn":  # read by torchvision, which holds the files against digests of its own
        known = {file.partition("_")[0]: ["", file, digest[4:]] for file, digest in digests(files, "md5").items()}
        monkeypatch.setattr(torchvision().datasets.SVHN, "split_list", known)
    raw = folder_of(folder)
    write(raw, files)
    return name, raw, files


def test_row20_the_tiny_sets_are_taken_as_they_are(
    published_set: tuple[str, Path, Files], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", published_set[0]]) == 0
    assert "digest: " in capsys.readouterr().out


@pytest.mark.parametrize("change", BYTES, ids=lambda name: f"row20-21-{name}")
def test_other_bytes_of_a_published_file(
    change: str, published_set: tuple[str, Path, Files], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each file in turn would only take longer: the first is images, the last is of the test split. c12."""
    name, raw, files = published_set
    for file in (next(iter(files)), list(files)[-1]):
        content = BYTES[change](files[file])
        (raw / file).write_bytes(content)
        got = hashlib.sha256(content).hexdigest()
        expected = published.DIGESTS[SETS[name][0]][file]
        refused(capsys, home, name, 3, str(raw / file), f"expected {expected}", f"got      sha256:{got}", "to fetch it again")
        (raw / file).write_bytes(files[file])


def test_row21_swapped_files_and_forged_sums_beside_them(
    published_set: tuple[str, Path, Files], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, raw, files = published_set
    first, last = next(iter(files)), list(files)[-1]
    forged = files | {first: files[last], last: files[first]}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {file}\n" for file, content in forged.items()).encode()
    md5 = "".join(f"{hashlib.md5(content).hexdigest()}  {file}\n" for file, content in forged.items()).encode()
    write(raw, forged | {"SHA256SUMS": sums, "md5sums": md5})
    refused(capsys, home, name, 3, str(raw / first), "is not the published file")


def test_row20_a_folder_in_the_place_of_a_file(
    published_set: tuple[str, Path, Files], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, raw, files = published_set
    file = raw / list(files)[-1]
    file.unlink()
    file.mkdir()
    refused(capsys, home, name, 3, f"{file} cannot be read: Is a directory", "to fetch it again")


@pytest.mark.parametrize("gone", ["missing", "dangling"], ids=lambda how: f"row22-{how}")
def test_a_missing_file_where_nothing_answers(
    gone: str, published_set: tuple[str, Path, Files], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says where which file belongs, with its digest."""
    name, raw, files = published_set
    for file in files:
        (raw / file).unlink()
    if gone == "dangling":
        (raw / next(iter(files))).symlink_to(raw / "nowhere")
    wanted = [f"{file} {digest}" for file, digest in published.DIGESTS[SETS[name][0]].items()]
    refused(capsys, home, name, 3, "no route to host", f"into {raw}", *wanted)


@pytest.mark.parametrize("change", [name for name in BYTES if name != "other-lengths"], ids=lambda name: f"row20-21-{name}")
def test_other_bytes_of_the_digits(change: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They come with scikit-learn, and are read here from a changed copy of its file. c12."""
    content = paths.packaged("sklearn/datasets/data/digits.csv.gz").read_bytes()
    changed = BYTES[change](content)
    if change == "flipped-byte":  # within, where gzip does not notice: the label of the last image
        values = gzip.decompress(content).rstrip()
        changed = gzip.compress(values[:-1] + bytes([values[-1] ^ 1]))
    (tmp_path / "digits.csv.gz").write_bytes(changed)
    with patch.object(paths, "packaged", lambda _: tmp_path / "digits.csv.gz"):
        refused(capsys, home, "digits", 3, "digits.csv.gz", "pip install --force-reinstall")


def test_row22_digits_whose_package_is_gone(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.py").write_text(
        '"""Is it so?"""\nfrom harness import Ablation, Budget, TrialSpec\n'
        "STUDY = Ablation(base=TrialSpec(dataset='digits'), arms={'a': {}}, budgets={'default': Budget(epochs=1, seeds=(0,))})\n"
    )
    with patch.object(paths, "find_spec", lambda name: None):
        assert cli.main(["study", str(tmp_path / "plan.py"), "--device", "cpu"]) == 3
    said = capsys.readouterr().err
    assert "sklearn/datasets/data/digits.csv.gz cannot be read" in said
    assert "pip install --force-reinstall" in said
    assert not home.exists()


OWN: Mapping[str, Callable[[Path], Path]] = {
    "npz": lambda folder: _npz(folder / "faces.npz"),
    "idx": lambda folder: write_idx(_made(folder / "scans") / "images-idx3-ubyte", noise(150, 6, 5)),
    "idx-gz": lambda folder: write_idx(_made(folder / "scans") / "images-idx3-ubyte.gz", noise(150, 6, 5)),
    "images": lambda folder: write_pictures(folder / "pets", noise(150, 6, 5)) or sorted((folder / "pets").rglob("*.png"))[0],
}
NAMES = {"npz": "npz:faces.npz", "idx": "idx:scans", "idx-gz": "idx:scans", "images": "images:pets"}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _npz(path: Path) -> Path:
    np.savez_compressed(path, images=noise(150, 6, 5))
    return path


@pytest.mark.parametrize("change", ["half", "empty", "other-magic", "broken-gzip"], ids=lambda name: f"row20-{name}")
@pytest.mark.parametrize("form", OWN)
def test_damaged_files_of_ones_own(
    form: str, change: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = OWN[form](tmp_path)
    file.write_bytes(BYTES[change](file.read_bytes()))
    refused(capsys, home, NAMES[form], 2, file.name)


@pytest.mark.parametrize("form", OWN)
def test_row22_files_of_ones_own_that_are_no_files(
    form: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = tmp_path / NAMES[form].partition(":")[2]
    refused(capsys, home, NAMES[form], 2, f"there is no {where.name}")
    where.symlink_to(tmp_path / "nowhere")
    refused(capsys, home, NAMES[form], 2, f"there is no {where.name}")
    where.unlink()
    where.mkdir() if form == "npz" else where.write_bytes(b"")
    refused(capsys, home, NAMES[form], 2, str(where))


IMAGES = noise(300, 6, 5)
WITH_A = SimpleNamespace(
    nan=np.where(np.arange(IMAGES.size).reshape(IMAGES.shape) == 77, np.nan, IMAGES / 255),
    inf=np.where(np.arange(IMAGES.size).reshape(IMAGES.shape) == 77, np.inf, IMAGES / 255),
)
ARRAYS: Mapping[str, tuple[dict[str, np.ndarray], str]] = {
    "row14-floats-to-255": ({"images": IMAGES.astype(float)}, "values 0 to 255"),
    "row15-standardised": ({"images": (IMAGES / 255 - 0.13) / 0.3}, "if they were standardised: undo it"),
    "row15-signed": ({"images": IMAGES.astype(np.int16) - 128}, "values -128 to 127"),
    "row16-all-black": ({"images": np.zeros_like(IMAGES)}, "all 300 images are equal, of one level throughout, 0: there"),
    "row16-all-the-same": ({"images": np.repeat(IMAGES[:1], 300, 0)}, "all 300 images are equal"),
    "row17-nan": ({"images": WITH_A.nan}, "images[2, 3, 2] = nan"),
    "row17-inf": ({"images": WITH_A.inf}, "images[2, 3, 2] = inf"),
    "row18-empty": ({"images": IMAGES[:0]}, "with at least one of them, got uint8 (0, 6, 5)"),
    "row18-one-image": ({"images": IMAGES[:1]}, "at least 10 are needed"),
    "row19-flat": ({"images": IMAGES.reshape(300, -1)}, "images must be (N, H, W)"),
    "row19-two-channels": ({"images": IMAGES.reshape(150, 2, 6, 5)}, "1 channel or 3, got uint8 (150, 2, 6, 5)"),
    "row19-alpha": ({"images": RNG.integers(0, 256, (300, 6, 5, 4)).astype(np.uint8)}, "leave out the alpha channel"),
    "row19-bool": ({"images": IMAGES > 127}, "of masks: 255 * images.astype('uint8')"),
    "row21-label-count": ({"images": IMAGES, "labels": np.zeros(299, int)}, "one per image, (300,); got int64 (299,)"),
    "row21-labels-of-names": ({"images": IMAGES, "labels": np.array(["a", "b", "c"] * 100)}, "return_inverse=True"),
    "row21-labels-of-floats": ({"images": IMAGES, "labels": np.arange(300) / 2}, "labels must be whole numbers"),
    "row21-negative-label": ({"images": IMAGES, "labels": np.arange(300) - 1}, "labels[0] = -1"),
    "S17-splits-overlap": (
        {"images": IMAGES, "train": np.arange(200), "validation": np.arange(150, 250), "test": np.arange(250, 300)},
        "validation[0] = train[150]",
    ),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_cannot_be_trained_on(
    case: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given, says = ARRAYS[case]
    np.savez(tmp_path / "own.npz", **given)
    refused(capsys, home, "npz:own.npz", 2, "npz:own.npz", says)


ALL_OF_THEM = """
import json, sys
from harness.cli import main
codes = [main(["data", name]) for name in sys.argv[1:]]
print(json.dumps([codes, "torch" in sys.modules]))
"""


def test_all_that_is_told_of_images_is_told_without_torch(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes seconds: rows 14 to 22."""
    monkeypatch.chdir(tmp_path)
    for case, (given, _) in ARRAYS.items():
        np.savez(tmp_path / f"{case}.npz", **given)
    for form, make in OWN.items():
        (folder := tmp_path / form).mkdir()
        file = make(folder)
        file.write_bytes(file.read_bytes()[:30])
    write(tmp_path / "data" / "MNIST" / "raw", dict.fromkeys(DIGESTS["MNIST"], b"others"))
    names = [*(f"npz:{case}.npz" for case in ARRAYS), *(name.replace(":", f":{form}/") for form, name in NAMES.items()), "mnist"]
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    done = subprocess.run([sys.executable, "-c", ALL_OF_THEM, *names], capture_output=True, text=True, check=True)
    codes, torch_too = json.loads(done.stdout.splitlines()[-1])
    assert codes == [2] * (len(names) - 1) + [3], done.stderr
    assert not torch_too
    assert not home.exists()


PLAN = """'''Is it so?'''
from harness import Ablation, Budget, TrialSpec
STUDY = Ablation(base=TrialSpec({base}), arms={{"a": {{}}}}, budgets={{"default": Budget(epochs=1, seeds=(0,))}})
"""
MINE = "import numpy as np\n\ndef faces(of=1.0):\n    return of * np.random.default_rng(0).random((300, 6, 5))\n"
STARTS: Mapping[str, tuple[str, str]] = {
    "row15-arrays": ("dataset='npz:row15-signed.npz'", "values -128 to 127"),
    "row17-a-function": ("dataset='mine.py:faces', dataset_args={'of': 2}", "the first beyond 0..1: images["),
    "row12-batch": ("dataset='mine.py:faces', batch_size=301", "batch_size=301 is more than the "),
    "row19-channels": (
        "dataset='mine.py:faces', likelihood='logistic_mixture', likelihood_args={'channels': 3}",
        "logistic_mixture is for images of 3 channels, mine.py:faces has 1",
    ),
}


@pytest.mark.parametrize("case", STARTS)
def test_a_start_that_is_refused_for_its_images_never_needs_torch(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base, says = STARTS[case]
    np.savez(tmp_path / "row15-signed.npz", **ARRAYS["row15-signed"][0])
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "plan.py").write_text(PLAN.format(base=base))
    told = run(["study", "plan.py", "--device", "cpu"], tmp_path / "home")
    assert_refused(told, 2, says)
    assert not told.imported
    assert not (tmp_path / "home").exists()


def test_row16_images_of_one_level_among_others_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = IMAGES.copy()
    images[[7, 9]] = np.array([0, 200], np.uint8)[:, None, None]
    np.savez(tmp_path / "own.npz", images=images)
    said: list[str] = []
    load_dataset("npz:own.npz", said.append)
    assert said == ["npz:own.npz: 2 of 300 images have one level throughout, the first: images[7]"]


def test_row19_arrays_that_unpack_to_more_than_the_memory(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a few KiB may unpack to any size."""
    monkeypatch.chdir(tmp_path)
    np.savez_compressed(tmp_path / "own.npz", images=np.zeros((300, 60, 60), np.uint8))
    monkeypatch.setattr(arrays, "memory_of_machine", lambda: 2**20)
    refused(capsys, home, "npz:own.npz", 2, "own.npz: holds 1.0 MiB, and this machine has 1.0 MiB of memory")
