"""Data sets: uint8 images in fixed splits, fetched if they are missing and checked byte for byte on every load.

In comes a name, out comes a `Data` of three splits on the CPU, no two of which share an image (disjoint.py). Models, training and
scores must not enter here. To add a data set, write a function that returns a `Data` and a line in catalog.py; published sets have
their digests in published.py and their sources in sources.py. A user's own is a function that returns images (own.py), or files,
which arrays.py (.npz), pictures.py and idx.py read. Names are loaded on first use, so that published.py needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.data.datasets import load_dataset, read_dataset
    from harness.data.description import as_dict, describe, in_words
    from harness.data.parts import Part, Parts, Say
    from harness.data.splits import Data, Split, as_images, frozen_noise

__all__ = [
    "Data",
    "Part",
    "Parts",
    "Say",
    "Split",
    "as_dict",
    "as_images",
    "describe",
    "frozen_noise",
    "in_words",
    "load_dataset",
    "read_dataset",
]

_MODULES = {
    "load_dataset": "datasets",
    "read_dataset": "datasets",
    "as_dict": "description",
    "describe": "description",
    "in_words": "description",
    "Part": "parts",
    "Parts": "parts",
    "Say": "parts",
}


def __getattr__(name: str) -> Any:
    """Return a name of this room, from the module that defines it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"harness.data.{_MODULES.get(name, 'splits')}"), name)
