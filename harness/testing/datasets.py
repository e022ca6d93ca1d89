"""The contract of a data set. Shapes: N images, P values."""

import math
from typing import Any

import torch

from harness import catalog
from harness.data import Data, read_dataset
from harness.testing.rules import Contract


def check_dataset(given: Any, **arguments: Any) -> None:
    """Raise an error if a data set breaks its contract.

    A function of the user's own returns images, or (images, labels), or a mapping of `images`, `labels`, `train`, `validation` and
    `test` (`harness.data.own`), and the same each time it is called. No image is in two splits, byte for byte, and each split has
    labels or none has.

    Args:
        given: A name of the catalog, data files such as `npz:faces.npz`, a reference, or the function.
        arguments: Those of the data set, a trial's `dataset_args`.

    Raises:
        ContractError: The rule that it breaks first.
        UserError: What the function returns is no data set.
        DataError: Files are missing and cannot be fetched, or are not the published ones.
    """
    contract, name = Contract(given, "dataset"), catalog.pinned("dataset", given)
    with contract.calling("it"):
        parts, again = (read_dataset(name, lambda _: None, arguments) for _ in range(2))
    check_data(contract, Data.of(parts))
    if parts.digest != again.digest:
        contract.broken("it must give the same images each time", "two digests", "fix the seed of whatever it draws")


def check_data(contract: Contract, data: Data) -> None:
    """Check the splits of a data set that is loaded."""
    splits = (data.train, data.validation, data.test)
    if len({split.labels is None for split in splits}) > 1:
        without = ", ".join(split.name for split in splits if split.labels is None)
        contract.broken("each split must have labels, or none", f"none of {without}", "give them of all images, or None")
    for split in splits:
        levels, labels = split.levels, split.labels
        contract.shape(f"the {split.name} images", levels, (len(split), math.prod(data.image_shape)), "(N, P)")
        if levels.dtype != torch.uint8:
            contract.broken("images must be uint8", levels.dtype, "give grey levels 0..255")
        if labels is not None and (labels.shape != (len(split),) or labels.dtype != torch.int64 or labels.min() < 0):
            contract.broken("labels must be int64 of at least 0, one per image", f"{labels.dtype} {tuple(labels.shape)}", "or None")
