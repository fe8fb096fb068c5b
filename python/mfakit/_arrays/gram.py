"""Matrices of inner products, a tile at a time: Ctrl-C is answered between two tiles."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["add_gram", "gram", "mirror"]

Array = NDArray[Any]

# Multiplications of a tile, a tenth of a second on one core, and its least side.
TILE_STEPS, LEAST_SIDE = 2**32, 16


def gram(A: Array) -> Array:
    """A Aᵀ [m, m] of A [m, d], float64."""
    out = np.zeros((len(A), len(A)))
    add_gram(out, A)
    mirror(out)
    return out


def add_gram(out: Array, A: Array, scale: float = 1.0) -> None:
    """Add scale · A Aᵀ to the lower triangle of `out` [m, m]; what is above is undefined."""
    m, d = A.shape
    side = max(LEAST_SIDE, isqrt(TILE_STEPS // max(d, 1)))  # square tiles, of which BLAS makes the most
    for start in range(0, m, side):
        rows = slice(start, start + side)
        for first in range(0, start + 1, side):
            columns = slice(first, first + side)
            tile = A[rows] @ A[columns].T
            if scale != 1.0:
                tile *= scale
            out[rows, columns] += tile


def mirror(out: Array, rows: int = 256) -> None:
    """Copy the lower triangle of `out` [m, m] to the upper one."""
    for start in range(0, len(out), rows):
        stop = start + rows
        out[:start, start:stop] = out[start:stop, :start].T
        square = out[start:stop, start:stop]
        square[...] = np.tril(square) + np.tril(square, -1).T
