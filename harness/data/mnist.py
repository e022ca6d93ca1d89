"""The MNIST family (MNIST, Fashion-MNIST, KMNIST), read from its published files."""

import gzip

import numpy as np

from harness.data.disjoint import three_splits
from harness.data.download import published_files
from harness.data.parts import Labels, Levels, Parts, Say
from harness.data.published import DIGESTS, name_of

SIDE = 28


def mnist_family(folder: str, say: Say) -> Parts:
    """Return the data set of this torchvision class name, fetching its files first if they are missing.

    The first 50,000 of the 60,000 published training images train, the last 10,000 validate. Published files may hold an image
    twice; what is then left out, `three_splits` says. MNIST and Fashion-MNIST have no such image.

    Args:
        folder: MNIST, FashionMNIST or KMNIST; the files are in `raw` of that folder in the data folder.
        say: Takes messages about progress, and about images that are left out.

    Raises:
        DataError: Files are missing and cannot be fetched, or their bytes are not the published ones.
    """
    found = zip(DIGESTS[folder], published_files(folder, say), strict=True)
    files = [gzip.decompress(content) if name.endswith(".gz") else content for name, content in found]
    train, test = (_read_pair(*files[i : i + 2]) for i in (0, 2))
    return three_splits(name_of(folder), (1, SIDE, SIDE), train=train, test=test, files=files, say=say)


def _read_pair(images: bytes, labels: bytes) -> tuple[Levels, Labels]:
    """Return the grey levels, uint8 (N, 784), and the classes, int64 (N,), of two IDX files."""
    pixels = np.frombuffer(images, dtype=np.uint8, offset=16).reshape(-1, SIDE * SIDE)
    classes = np.frombuffer(labels, dtype=np.uint8, offset=8)
    return pixels.copy(), classes.astype(np.int64)  # bytes cannot be written to, and torch takes no such arrays
