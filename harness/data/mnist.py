"""The MNIST family (MNIST, Fashion-MNIST, KMNIST), read from its raw files."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness import catalog, paths
from harness.data.disjoint import in_words, shared, without
from harness.data.download import FILES, MNIST_SHA256, fetch, published
from harness.data.splits import Data, Say, Split
from harness.errors import DataError

SUMS = "SHA256SUMS"
VALIDATION = 10_000


def mnist_family(folder: str, say: Say) -> Data:
    """Return the data set of this torchvision class name, fetching its files first if they are missing.

    Published files may hold an image twice. What is in the test split is then left out of validation and training, and what is in
    validation out of training, which is said and makes another digest. MNIST and Fashion-MNIST have no such image.

    Args:
        folder: MNIST, FashionMNIST or KMNIST; the files are in `raw` of that folder in the data folder.
        say: Takes messages about progress, and about images that are left out.

    Raises:
        DataError: Files are missing and cannot be fetched, or their bytes are not the published ones.
    """
    raw = paths.data() / folder / "raw"
    if not all((raw / f).exists() for f in FILES):
        fetch(folder, raw, say)
    sums = _checked_sums(folder, raw)
    train, test = (_read_pair(raw / FILES[i], raw / FILES[i + 1]) for i in (0, 2))
    n = len(train[0]) - VALIDATION
    parts = [
        Split("train", train[0][:n], train[1][:n]),
        Split("validation", train[0][n:], train[1][n:]),
        Split("test", *test),
    ]
    twice = shared(parts)
    if twice:
        say(f"{_name_of(folder)}: left out of the first split of each pair:\n{in_words(twice)}")
    left_out = [f"without {s.part}{list(s.rows)}" for s in twice]
    splits = {part.name: without(part, twice) for part in parts}
    digest = _digest(*sums, f"train[:{n}] train[{n}:] test", *left_out)
    return Data(name=_name_of(folder), image_shape=(1, 28, 28), digest=digest, disjoint=True, **splits)


def _read_pair(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    """Return the grey levels, uint8 (N, 784), and the classes, int64 (N,), of two IDX files."""
    pixels = np.fromfile(images, dtype=np.uint8, offset=16).reshape(-1, 784)
    classes = np.fromfile(labels, dtype=np.uint8, offset=8)
    return torch.from_numpy(pixels), torch.from_numpy(classes).long()


def _checked_sums(folder: str, raw: Path) -> tuple[str, ...]:
    """Return the sha256 of the four files.

    Raises:
        DataError: A file is not the published one, or it cannot be verified.
    """
    actual = tuple(hashlib.sha256((raw / f).read_bytes()).hexdigest() for f in FILES)
    expected = MNIST_SHA256 if folder == "MNIST" else _recorded_sums(folder, raw)
    for file, digest, published_digest in zip(FILES, actual, expected, strict=True):
        if digest != published_digest:
            raise DataError(
                f"{raw / file} is not the published file\n"
                f"sha256 expected {published_digest}\nsha256 got      {digest} ({(raw / file).stat().st_size:,} bytes)\n"
                f"delete it and run `{paths.command('data', dataset=_name_of(folder))}` to fetch it again"
            )
    return actual


def _recorded_sums(folder: str, raw: Path) -> tuple[str, ...]:
    """Return the sha256 of the four files as recorded in `SHA256SUMS` beside them.

    If that file is missing, it is written first, from the .gz archives beside the files, whose md5 must be the published one.

    Raises:
        DataError: `SHA256SUMS` is missing, and an archive is missing or is not the published one.
    """
    sums = raw / SUMS
    if not sums.exists():
        digests = []
        for file, (archive, md5) in zip(FILES, published(folder), strict=True):
            packed = raw / archive
            if not packed.exists() or hashlib.md5(packed.read_bytes()).hexdigest() != md5:
                raise DataError(
                    f"{raw / file} cannot be verified: {archive} (md5 {md5}) is not beside it\n"
                    f"put the four published .gz files into {raw}, or empty the folder and run "
                    f"`{paths.command('data', dataset=_name_of(folder))}`"
                )
            digests.append(hashlib.sha256(gzip.decompress(packed.read_bytes())).hexdigest())
        sums.write_text("".join(f"{d}  {f}\n" for d, f in zip(digests, FILES, strict=True)))
    lines = [line.split() for line in sums.read_text().splitlines()]
    recorded = {file: digest for digest, file in lines}
    return tuple(recorded.get(f, "nothing recorded") for f in FILES)


def _name_of(folder: str) -> str:
    """Return the data set's name in the catalog for a torchvision class name."""
    return next(name for name, entry in catalog.DATASETS.items() if entry.fixed.get("folder") == folder)


def _digest(*parts: str) -> str:
    """Return the sha256 of these lines, in hex digits."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
