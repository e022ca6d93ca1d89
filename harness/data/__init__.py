"""Data sets: uint8 images in fixed splits, fetched if they are missing and checked byte for byte on every load.

In comes a name, out comes a `Data` of three splits on the CPU, no two of which share an image (disjoint.py). Models, training and
scores must not enter here. To add a data set, write a function that returns a `Data` and a line in catalog.py; published sets have
their digests in published.py and their sources in sources.py. A user's own is a function that returns images (own.py), or files,
which arrays.py (.npz), pictures.py and idx.py read.
"""

from harness.data.datasets import load_dataset
from harness.data.description import in_words
from harness.data.splits import Data, Say, Split, as_images, frozen_noise

__all__ = ["Data", "Say", "Split", "as_images", "frozen_noise", "in_words", "load_dataset"]
