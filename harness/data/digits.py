"""scikit-learn's digits: offline and tiny, for tests and first steps."""

import hashlib

import numpy as np
import torch

from harness.data.splits import Data, Say, Split


def digits(say: Say) -> Data:
    """Return scikit-learn's 1,797 digits of 8x8 pixels, with levels 0..16 stretched to 0..255.

    They are shuffled by a fixed permutation: 1,197 train, 300 validate, 300 test. `say` is not used.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    levels = torch.from_numpy(np.rint(bunch.data * (255 / 16)).astype(np.uint8))
    labels = torch.from_numpy(bunch.target).long()
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(levels)))
    parts = {"train": order[:1197], "validation": order[1197:1497], "test": order[1497:]}
    train, validation, test = (Split(name, levels[i], labels[i]) for name, i in parts.items())
    content = hashlib.sha256(levels.numpy().tobytes() + order.numpy().tobytes()).hexdigest()
    return Data(name="digits", image_shape=(1, 8, 8), train=train, validation=validation, test=test, digest=content)
