"""CIFAR's "python" batches: pickles of a dict with an array and lists, read without running what they may ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.messages import one_line
from .._io.pickle_machine import Interpreter, Refused, StatedArray, StatedDict, stated_values

__all__ = ["read_batch"]

IMAGE_BYTES = 3072
# A batch takes 5 operations an image where Python 2 wrote it, and up to 9 where Python 3 did.
_OPERATIONS, _OPERATIONS_PER_IMAGE = 1000, 16


def read_batch(data: bytes, source: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels [n] and pixels [n, 3072] of one pickled batch; `source` is its name in errors.

    Raises
    ------
    ValueError
        If the pickle is damaged, is not a CIFAR batch, or asks for anything but an array of bytes.
    """
    try:
        batch = Interpreter(data, _OPERATIONS + _OPERATIONS_PER_IMAGE * (len(data) // IMAGE_BYTES)).run()
        return _labels(_entry(batch, "labels")), _pixels(_entry(batch, "data"))
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"{source} is not a CIFAR-10 batch ({one_line(error)}); get the file again") from error


def _entry(batch: Any, key: str) -> Any:
    """Keys are bytes where Python 2 wrote the file, text where Python 3 did."""
    if not isinstance(batch, StatedDict):
        raise Refused(f"it holds a {type(batch).__name__}, not a dict")
    found = [value for name, value in batch.pairs if isinstance(name, str | bytes) and name in (key, key.encode())]
    if len(found) != 1:
        raise Refused(f"it has {'no' if not found else 'more than one'} {key}")
    return found[0]


def _labels(values: Any) -> NDArray[np.uint8]:
    if isinstance(values, StatedArray):
        values = _values(values, "labels", "iu", 1).tolist()
    if not isinstance(values, list) or any(type(v) is not int or not 0 <= v < 256 for v in values):
        raise Refused("its labels are not a list of small integers")
    return np.array(values, dtype=np.uint8)


def _pixels(array: Any) -> NDArray[np.uint8]:
    if not isinstance(array, StatedArray):
        raise Refused("its data is not a NumPy array")
    pixels = _values(array, "data", "u", 2)
    if pixels.dtype != np.uint8:
        raise Refused("its data is not an array of unsigned bytes")
    if pixels.shape[1] != IMAGE_BYTES:
        raise Refused(f"its data must be [n, {IMAGE_BYTES}], got shape {pixels.shape}")
    return pixels


def _values(array: StatedArray, name: str, kinds: str, n_axes: int) -> NDArray[Any]:
    """The array that the file states, of integers of these kinds."""
    if not isinstance(array.shape, tuple) or len(array.shape) != n_axes:
        raise Refused(f"its {name} must have {n_axes} axes")
    return stated_values(array, name, kinds, "unsigned bytes" if kinds == "u" else "integers")
