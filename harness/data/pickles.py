"""Pickles of numpy arrays, read by an unpickler that knows arrays and nothing else."""

import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np

KINDS = ("b1", "u1", "i4", "i8", "f4", "f8")  # of numbers; an array of objects could hold anything


def _dtype(kind: str, align: bool, copy: bool) -> np.dtype[Any]:
    """Return a type of numbers by its code.

    Raises:
        pickle.UnpicklingError: It is another type.
    """
    if kind not in KINDS:
        raise pickle.UnpicklingError(f"arrays of {kind!r} are not read from a pickle, of {', '.join(KINDS)} they are")
    return np.dtype(kind, align=bool(align), copy=bool(copy))


def _array(subtype: type[np.ndarray], shape: tuple[int, ...], code: bytes) -> np.ndarray[Any, Any]:
    """Return the empty array that a pickle then fills, as numpy's own function of this place does."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


KNOWN: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _array,  # until numpy 1
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": _dtype,
}


class _Arrays(pickle.Unpickler):
    """An unpickler that finds what an array is made of, and refuses whatever else a pickle may call for."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name in a pickle."""
        known = KNOWN.get(f"{module}.{name}")
        if known is None:
            raise pickle.UnpicklingError(f"it calls for {module}.{name}, and only arrays are read from a pickle")
        return known


def arrays(content: bytes) -> Any:
    """Return what a pickle of numpy arrays, lists, dictionaries and numbers holds; text of Python 2 is taken as latin-1.

    Raises:
        ValueError: It holds something else, or is no whole pickle.
    """
    try:
        return _Arrays(BytesIO(content), encoding="latin1").load()
    except Exception as fault:  # the bytes may be anything, and what is no pickle fails by one of a dozen errors
        raise ValueError(f"no pickle of arrays: {str(fault) or type(fault).__name__}") from None
