"""CIFAR's "python" batches without running what a pickle may ask for.

The batches are pickles of a dict with an array and lists. The unpickler below resolves five names and no others, each
to a stand-in that only keeps what it is handed: neither NumPy nor anything else is called on behalf of the file.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_batch"]


class _Dtype:
    def __init__(self, code: Any = None, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which unsigned bytes do not have."""


class _Array:
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _latin1(text: str, *_: Any) -> bytes:
    # Python 3 writes bytes so where the protocol has none.
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _check_opcodes(data: bytes) -> None:
    """Raise for arguments cut short, and for memo numbers that make the unpickler allocate gigabytes."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "LONG_BINPUT") and (argument or 0) > len(data):
            raise pickle.UnpicklingError(f"it numbers an object {argument}")


def read_batch(data: bytes, source: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels [n] and pixels [n, 3072] of one pickled batch; `source` is its name in errors.

    Raises
    ------
    ValueError
        If the pickle is damaged, is not a CIFAR batch, or asks for anything but an array of bytes.
    """
    try:
        _check_opcodes(data)
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        return _labels(_entry(batch, "labels")), _pixels(_entry(batch, "data"))
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = " ".join(str(error).split())  # some of pickle's messages have several lines
        raise ValueError(f"{source} is not a CIFAR-10 batch ({reason}); get the file again") from error


def _entry(batch: Any, key: str) -> Any:
    """Keys are bytes where Python 2 wrote the file, text where Python 3 did."""
    if not isinstance(batch, dict):
        raise TypeError(f"it holds a {type(batch).__name__}, not a dict")
    for name in (key.encode(), key):
        if name in batch:
            return batch[name]
    raise KeyError(f"no {key}")


def _labels(values: Any) -> NDArray[np.uint8]:
    if not isinstance(values, list) or any(type(v) is not int or not 0 <= v < 256 for v in values):
        raise TypeError("its labels are not a list of small integers")
    return np.array(values, dtype=np.uint8)


def _pixels(array: Any) -> NDArray[np.uint8]:
    """The array that NumPy's state (version, shape, dtype, Fortran order, bytes) describes."""
    if not isinstance(array, _Array) or not isinstance(array.state, tuple) or len(array.state) != 5:
        raise TypeError("its data is not a NumPy array")
    _, shape, dtype, fortran, raw = array.state
    if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", b"u1") or not isinstance(raw, bytes):
        raise TypeError("its data is not an array of unsigned bytes")
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] != 3072 or shape[0] * 3072 != len(raw):
        raise ValueError(f"its data must be [n, 3072], got shape {shape} and {len(raw)} bytes")
    return np.frombuffer(raw, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")
