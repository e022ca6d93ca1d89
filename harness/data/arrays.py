"""Images in an .npz file of NumPy."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.parts import Say
from harness.errors import UserError, cut
from harness.resources import memory_of_machine, size

NPY = b"\x93NUMPY"  # with which a file of one array begins


def from_npz(path: Path, say: Say) -> Mapping[str, Any]:
    """Return the arrays of an .npz file by name, as `own.from_given` takes them. Nothing in it is unpickled.

    Raises:
        UserError: It is no .npz file, is damaged, or holds objects, or more than this machine has memory for.
    """
    try:
        unpacked = 0
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                unpacked = sum(member.file_size for member in packed.infolist())
        if unpacked > (memory := memory_of_machine()):
            raise UserError(f"{path}: holds {size(unpacked)}, and this machine has {size(memory)} of memory\ngive fewer images")
        _check_form(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except UserError:
        raise
    except Exception as fault:  # the bytes may be damaged anywhere, and NumPy, zipfile and zlib each fail in their own ways
        alone = isinstance(fault, AttributeError | TypeError)
        hint = "one array alone: np.savez(path, images=images)" if alone else f"{type(fault).__name__}: {cut(str(fault))}"
        raise UserError(f"{path}: is no .npz file of plain arrays: {hint}") from None


def _check_form(path: Path) -> None:
    """Raise an error if a file is of another form than NumPy's, which NumPy takes for a pickle and advises to load unsafely."""
    with path.open("rb") as file:
        start = file.read(len(NPY))
    if start and start != NPY and not start.startswith(b"PK"):
        got = f"it begins with {start!r}, one with b'PK'"
        raise UserError(f"{path}: is no .npz file of plain arrays: {got}\nof an array: np.savez(path, images=images)")
