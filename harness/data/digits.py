"""scikit-learn's digits: offline and tiny, for tests and first steps."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from harness.data.splits import Data, Say, Split
from harness.errors import DataError

PUBLISHED = "055fd33cc651aa3596a867ec9b9d22fa7bb47e866325ad005291b448666350f0"  # sha256 of the levels, their order, and the labels


def digits(say: Say) -> Data:
    """Return scikit-learn's 1,797 digits of 8x8 pixels, with levels 0..16 stretched to 0..255.

    They are shuffled by a fixed permutation: 1,197 train, 300 validate, 300 test. `say` is not used.

    Raises:
        DataError: The file of scikit-learn cannot be read, or holds others.
    """
    from sklearn.datasets import load_digits

    try:
        bunch = load_digits()
    except Exception as fault:  # its file may be gone or damaged anywhere, which gzip, zlib and numpy say in their own ways
        raise _damaged(f"cannot be read: {type(fault).__name__}: {fault}") from None
    levels = torch.from_numpy(np.rint(bunch.data * (255 / 16)).astype(np.uint8))
    labels = torch.from_numpy(bunch.target).long()
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(levels)))
    parts = {"train": order[:1197], "validation": order[1197:1497], "test": order[1497:]}
    train, validation, test = (Split(name, levels[i], labels[i]) for name, i in parts.items())
    content = hashlib.sha256(levels.numpy().tobytes() + order.numpy().tobytes())
    whole = content.copy()
    whole.update(labels.numpy().tobytes())
    if whole.hexdigest() != PUBLISHED:
        raise _damaged(f"does not hold the published digits\nexpected sha256:{PUBLISHED}\ngot      sha256:{whole.hexdigest()}")
    digest = content.hexdigest()
    return Data(name="digits", image_shape=(1, 8, 8), train=train, validation=validation, test=test, digest=digest)


def _damaged(how: str) -> DataError:
    """Return the error for scikit-learn's file when it is not as it should be."""
    from sklearn import datasets

    file = Path(datasets.__file__).parent / "data" / "digits.csv.gz"
    return DataError(f"{file} {how}\ninstall it again: pip install --force-reinstall --no-deps scikit-learn")
