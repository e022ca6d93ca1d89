"""scikit-learn's digits: offline and tiny, for tests and first steps."""

import gzip
import hashlib
from pathlib import Path

import numpy as np

from harness import catalog, paths
from harness.data.parts import Part, Parts, Say
from harness.errors import DataError

PUBLISHED = "055fd33cc651aa3596a867ec9b9d22fa7bb47e866325ad005291b448666350f0"  # sha256 of the levels, their order, and the labels


def digits(say: Say) -> Parts:
    """Return scikit-learn's 1,797 digits of 8x8 pixels, with levels 0..16 stretched to 0..255.

    They are shuffled by a fixed permutation: 1,197 train, 300 validate, 300 test. `say` is not used. The file is read without
    scikit-learn, whose import would take longer than a small trial.

    Raises:
        DataError: The file of scikit-learn cannot be read, or holds others.
    """
    try:
        with gzip.open(_file(), "rt", encoding="ascii") as file:
            table = np.array([line.split(",") for line in file], dtype=np.float64)  # an image a row: 64 levels and the label
        images, labels = table[:, :-1], table[:, -1].astype(np.int64)
    except Exception as fault:  # its file may be gone or damaged anywhere, which gzip, zlib and numpy say in their own ways
        raise _damaged(f"cannot be read: {type(fault).__name__}: {fault}") from None
    levels = np.rint(images * (255 / 16)).astype(np.uint8)
    order = np.random.RandomState(0).permutation(len(levels))
    entry = catalog.DATASETS["digits"]
    first, second = entry.train, entry.train + entry.validation
    parts = {"train": order[:first], "validation": order[first:second], "test": order[second:]}
    train, validation, test = (Part(name, levels[i], labels[i]) for name, i in parts.items())
    content = hashlib.sha256(levels.tobytes() + order.tobytes())
    whole = content.copy()
    whole.update(labels.tobytes())
    if whole.hexdigest() != PUBLISHED:
        raise _damaged(f"does not hold the published digits\nexpected sha256:{PUBLISHED}\ngot      sha256:{whole.hexdigest()}")
    digest = content.hexdigest()
    return Parts(name="digits", image_shape=(1, 8, 8), train=train, validation=validation, test=test, digest=digest)


def _file() -> Path:
    """Return the path of scikit-learn's file."""
    return paths.packaged(catalog.DATASETS["digits"].packaged)


def _damaged(how: str) -> DataError:
    """Return the error for scikit-learn's file when it is not as it should be."""
    return DataError(f"{_file()} {how}\ninstall it again: pip install --force-reinstall --no-deps scikit-learn")
