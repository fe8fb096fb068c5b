"""Matrices of inner products, a panel at a time: Ctrl-C is heard between two panels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["add_gram", "gram", "mirror"]

Array = NDArray[Any]

# Multiplications of a panel, less than a tenth of a second on one core; and its least rows, which keep a product fast.
PANEL_STEPS, LEAST_ROWS = 2**31, 16


def gram(A: Array) -> Array:
    """A Aᵀ [m, m] of A [m, d], float64."""
    out = np.zeros((len(A), len(A)))
    add_gram(out, A)
    mirror(out)
    return out


def add_gram(out: Array, A: Array, scale: float = 1.0) -> None:
    """Add scale · A Aᵀ to the lower triangle of `out` [m, m]; what is above is undefined."""
    m, d = A.shape
    start = 0
    while start < m:
        stop = min(m, start + max(LEAST_ROWS, PANEL_STEPS // max(1, (start + LEAST_ROWS) * d)))
        stop = min(stop, start + max(LEAST_ROWS, PANEL_STEPS // max(1, stop * d)))
        panel = A[start:stop] @ A[:stop].T
        if scale != 1.0:
            panel *= scale
        out[start:stop, :stop] += panel
        start = stop


def mirror(out: Array, rows: int = 256) -> None:
    """Copy the lower triangle of `out` [m, m] to the upper one."""
    for start in range(0, len(out), rows):
        stop = start + rows
        out[:start, start:stop] = out[start:stop, :start].T
        square = out[start:stop, start:stop]
        square[...] = np.tril(square) + np.tril(square, -1).T
