"""Train the feature networks that come with the package anew, into harness/metrics/feature_networks.

Run as `python tests/helpers/feature_networks.py` after `harness.metrics.features.VERSION` was raised; half a minute on one core.
"""

import os
import shutil
import tempfile
from pathlib import Path

from harness import data
from harness.metrics import features

NAMES = ("mnist", "fashion_mnist")  # data sets that anyone gets byte by byte the same


def main() -> None:
    """Train the networks in a data folder of their own, and keep them in place of those of other versions."""
    sets = [data.load_dataset(name) for name in NAMES]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HARNESS_DATA"] = scratch
        for file in features.PACKAGED.glob("*.pt"):
            file.unlink()
        for images in sets:
            print(features.feature_net(images, say=print).in_words)
        for file in (Path(scratch) / "features").glob("*.pt"):
            shutil.copy(file, features.PACKAGED)


if __name__ == "__main__":
    main()
