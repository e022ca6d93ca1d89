"""Published sets of 3x32x32 photographs: CIFAR-10 and SVHN. Shapes: N images, P = 3 * 32 * 32 values, channel by channel."""

from pathlib import Path

import numpy as np

from harness.data.disjoint import three_splits
from harness.data.download import published_files
from harness.data.parts import Labels, Levels, Parts, Say
from harness.data.pickles import arrays
from harness.data.published import DIGESTS, folder_of, name_of

SHAPE = (3, 32, 32)


def cifar10(folder: str, say: Say) -> Parts:
    """Return CIFAR-10, photographs of ten kinds of thing (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html).

    Of the 50,000 published training images, which are shuffled, the first 40,000 train, and the last 10,000, which are the file
    `data_batch_5`, validate. What is left out, `three_splits` says.

    Args:
        folder: CIFAR10; its batches are in `raw` of that folder in the data folder.
        say: Takes messages about progress, and about images that are left out.

    Raises:
        DataError: Files are missing and cannot be fetched, or their bytes are not the published ones.
    """
    files = published_files(folder, say)
    batches = [_batch(content) for content in files]
    levels, labels = (np.concatenate(of_batches) for of_batches in zip(*batches[:-1], strict=True))
    return three_splits(name_of(folder), SHAPE, train=(levels, labels), test=batches[-1], files=files, say=say)


def _batch(content: bytes) -> tuple[Levels, Labels]:
    """Return the levels, uint8 (N, P), and the classes, int64 (N,), of a batch: a pickle whose rows are red, green, blue."""
    batch = arrays(content)
    return batch["data"], np.array(batch["labels"], dtype=np.int64)


def svhn(folder: str, say: Say) -> Parts:
    """Return SVHN, house numbers cropped to a digit (Netzer et al., 2011, http://ufldl.stanford.edu/housenumbers).

    Of the 73,257 published training images the first 63,257 train and the last 10,000 validate; 26,032 test. The 531,131 further
    images are not used. Labels are the digits: 0 is published as 10. What is left out, `three_splits` says.

    Args:
        folder: SVHN; its two .mat files are in `raw` of that folder in the data folder.
        say: Takes messages about progress, and about images that are left out.

    Raises:
        DataError: Files are missing and cannot be fetched, or their bytes are not the published ones.
    """
    files = published_files(folder, say)
    train, test = (_digits(folder_of(folder), name.partition("_")[0]) for name in DIGESTS[folder])
    return three_splits(name_of(folder), SHAPE, train=train, test=test, files=files, say=say)


def _digits(raw: Path, split: str) -> tuple[Levels, Labels]:
    """Return the levels, uint8 (N, P), and the digits, int64 (N,), of a split of SVHN, as torchvision reads them by scipy."""
    from harness.data.torchvision_door import torchvision

    read = torchvision().datasets.SVHN(raw, split=split)
    return read.data.reshape(len(read.data), -1), read.labels
