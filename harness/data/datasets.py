"""Data sets by name, reference or file. Torch is imported for tensors alone: a data set that is refused is so without it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness import catalog, references
from harness.data.disjoint import in_words, shared
from harness.data.own import from_function, from_given
from harness.data.parts import Parts, Say
from harness.errors import DataError
from harness.spec.arguments import NO_ARGUMENTS

if TYPE_CHECKING:
    from harness.data.splits import Data


def load_dataset(name: str, say: Say = print, arguments: Mapping[str, Any] = NO_ARGUMENTS) -> "Data":
    """Return the data set of this name in tensors on the CPU, as `read_dataset` reads it, with the same arguments and errors."""
    parts = read_dataset(name, say, arguments)
    from harness.data.splits import Data

    return Data.of(parts)


def read_dataset(name: str, say: Say = print, arguments: Mapping[str, Any] = NO_ARGUMENTS) -> Parts:
    """Return the data set of this name in NumPy's arrays, fetching its files first if they are missing.

    The MNIST family is split into the first 50,000 training images for training, the last 10,000 for validation and the published
    10,000 test images.

    Args:
        name: One of `catalog.DATASETS`, data files such as `npz:faces.npz` (`catalog.DATA_FILES`), or a reference to a function of
            the user's own (own.py).
        say: Takes messages about progress, and about what is taken in another form than it came in.
        arguments: Of the data set, by keyword: a trial's `dataset_args`.

    Raises:
        UserError: There is no data set of this name, or what the function or the files give is none.
        DataError: Files are missing and cannot be fetched, or their bytes are not the published or pinned ones, or an image is in
            two splits.
    """
    name = catalog.pinned("dataset", name)
    found = catalog.find("dataset", name)
    if catalog.takes_file("dataset", name):
        path = references.find_file(name)
        given = found(path, say, **arguments)
        references.check_unchanged(name, path)
        return from_given(references.label(name), given, say)
    if catalog.entry("dataset", name) is None:
        return from_function(references.label(name), found, arguments, say)
    parts: Parts = found(say=say, **arguments)
    twice = [] if parts.disjoint else shared([parts.train, parts.validation, parts.test])
    if twice:
        raise DataError(f"{name}: an image belongs to one split, but\n{in_words(twice)}")
    return parts
