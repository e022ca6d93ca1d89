"""Images in an .npz file of NumPy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.splits import Say
from harness.errors import UserError


def from_npz(path: Path, say: Say) -> Mapping[str, Any]:
    """Return the arrays of an .npz file by name, as `own.from_given` takes them. Nothing in it is unpickled.

    Raises:
        UserError: It is no .npz file, is damaged, or holds objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as fault:  # the bytes may be damaged anywhere, and NumPy, zipfile and zlib each fail in their own ways
        alone = isinstance(fault, AttributeError | TypeError)
        hint = "one array alone: np.savez(path, images=images)" if alone else f"{type(fault).__name__}: {fault}"
        raise UserError(f"{path}: is no .npz file of plain arrays: {hint}") from None
