"""From decoded bytes to samples: which classes are kept, how they are numbered, and pixels in [0, 1]."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Split", "as_classes", "as_features", "keep_classes"]

# X_train [n, d], y_train [n], X_test [m, d], y_test [m]
Split = tuple[NDArray[Any], NDArray[np.int64], NDArray[Any], NDArray[np.int64]]

_BLOCK_ROWS = 1024


def as_classes(classes: Iterable[int] | None, n_classes: int) -> tuple[int, ...] | None:
    """Distinct labels below `n_classes` in the order given; None keeps all."""
    if classes is None:
        return None
    try:
        chosen = tuple(operator.index(c) for c in classes)
    except TypeError:
        raise TypeError(f"classes must be None or integers from 0 to {n_classes - 1}, got {classes!r}") from None
    if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0 or max(chosen) >= n_classes:
        raise ValueError(f"classes must be different integers from 0 to {n_classes - 1}, got {classes!r}")
    return chosen


def keep_classes(
    labels: NDArray[np.uint8], classes: tuple[int, ...] | None, n_classes: int, source: str
) -> tuple[NDArray[np.intp] | slice, NDArray[np.int64]]:
    """The rows of the chosen classes, in file order, and their labels 0, 1, … in the order of `classes`.

    Raises
    ------
    ValueError
        If a label is not below `n_classes`, or a chosen class has no image.
    """
    if len(labels) and labels.max() >= n_classes:
        raise ValueError(f"{source} holds the label {labels.max()}, expected 0 to {n_classes - 1}; get the file again")
    if classes is None:
        return slice(None), labels.astype(np.int64)
    new_label = np.full(n_classes, -1, dtype=np.int64)
    new_label[list(classes)] = np.arange(len(classes))
    y = new_label[labels]
    absent = sorted(set(classes) - set(np.unique(labels).tolist()))
    if absent:
        raise ValueError(f"{source} has no image of class {absent[0]}; choose classes that it holds")
    rows = np.flatnonzero(y >= 0)
    return rows, y[rows]


def as_features(pixels: NDArray[np.uint8], rows: NDArray[np.intp] | slice, as_uint8: bool) -> NDArray[Any]:
    """`pixels[rows]` [n, d] as they are, or divided by 255 in float32, block by block.

    With a slice and `as_uint8` this is a view, so a memory map stays one.
    """
    if as_uint8:
        return pixels[rows]
    index = np.arange(len(pixels))[rows]
    out = np.empty((len(index), pixels.shape[1]), dtype=np.float32)
    for start in range(0, len(index), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        np.divide(pixels[index[block]], np.float32(255), out=out[block])
    return out
