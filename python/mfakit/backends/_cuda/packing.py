"""How what operations take becomes the argument of a CUDA kernel: structs by value, as csrc/include/mfakit/operands.hpp
declares them, fields first and then sizes, each of 8 bytes.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

__all__ = ["pack"]


def pack(operand: Any) -> Any:
    """The struct of a named tuple, as the array of size one that CuPy passes by value; anything else as it is."""
    if not isinstance(operand, tuple):
        return operand
    values = [_value(value) for value in (*operand, *operand.sizes)]  # type: ignore[attr-defined]
    codes = "".join("d" if isinstance(value, float) else "q" for value in values)
    packed = struct.pack(f"={codes}", *values)
    return np.frombuffer(packed, np.dtype((np.void, len(packed))))


def _value(value: Any) -> int | float:
    """An array's address, null where it has no entries, or the number itself."""
    if isinstance(value, float):
        return float(value)
    if not getattr(value, "ndim", 0):
        return int(value)
    if not value.flags.c_contiguous:
        raise ValueError(f"what a kernel takes must be C-contiguous, got strides {value.strides} for {value.shape}")
    return int(value.data.ptr) if value.size else 0
