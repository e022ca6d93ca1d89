"""Data sets by name or reference."""

from harness import catalog, references
from harness.data.disjoint import in_words, shared
from harness.data.own import from_function
from harness.data.splits import Data, Say
from harness.errors import DataError


def load_dataset(name: str, say: Say = print) -> Data:
    """Return the data set of this name on the CPU, fetching its files first if they are missing.

    The MNIST family is split into the first 50,000 training images for training, the last 10,000 for validation and the published
    10,000 test images.

    Args:
        name: One of `catalog.DATASETS`, or a reference to a function of the user's own (own.py).
        say: Takes messages about progress.

    Raises:
        UserError: There is no data set of this name, or what the function returns is none.
        DataError: Files are missing and cannot be fetched, or their bytes are not the published ones, or an image is in two splits.
    """
    name = catalog.pinned("dataset", name)
    found = catalog.find("dataset", name)
    if catalog.entry("dataset", name) is None:
        return from_function(references.label(name), found)
    data: Data = found(say=say)
    twice = [] if data.disjoint else shared([data.train, data.validation, data.test])
    if twice:
        raise DataError(f"{name}: an image belongs to one split, but\n{in_words(twice)}")
    return data
