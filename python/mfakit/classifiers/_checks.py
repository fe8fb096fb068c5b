"""What the estimators check on entry: constructor parameters, labels, samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.containers import as_host_array
from .._arrays.rows import RowBlocks, check_finite_rows
from .._threads.process import errstate

__all__ = [
    "as_classes",
    "as_labels",
    "check_block",
    "encode_labels",
    "rows_on_host",
]

Array = NDArray[Any]


def as_classes(labels: Array) -> Array:
    """The distinct labels in order, int64 [C].

    Raises
    ------
    ValueError
        For labels that are not integers, or of one class only.
    """
    values = np.unique(labels)
    with errstate(invalid="ignore"):
        whole = values.astype(np.int64) if values.dtype.kind in "iufb" else None
    if whole is None or (whole != values).any():
        raise ValueError(
            f"y must hold integer class labels, got {values.dtype} values such as {values.tolist()[0]!r}; encode them "
            f"as 0, 1, … first"
        )
    if len(whole) < 2:
        raise ValueError(f"y has one class only, {', '.join(map(str, whole))}; a classifier needs two or more")
    return whole


def as_labels(y: Any, n: int, name: str) -> Array:
    """The labels of n samples [n], of any kind that can be told apart: numbers, strings or booleans; `name` is the
    classifier's.
    """
    from sklearn.utils.validation import column_or_1d

    if y is None:
        raise ValueError(f"{name} requires y to be passed, but the target y is None")
    labels = as_host_array(y, "y")
    if labels.dtype.kind not in "iufbUO":
        raise ValueError(f"y must hold class labels, integers or strings, got {labels.dtype}; encode them as 0, 1, …")
    labels = column_or_1d(labels, warn=True)
    if labels.dtype == object and len(kinds := {type(label).__name__ for label in labels}) > 1 and "str" in kinds:
        raise ValueError(f"y must hold class labels of one kind, got values of {', '.join(sorted(kinds))}")
    if len(labels) != n:
        raise ValueError(f"X and y must have one label per sample, got inconsistent numbers: {n} and {len(labels)}")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError("Input y contains NaN or infinity; labels must be finite")
    return np.asarray(labels)


def encode_labels(y: Any, n: int, name: str, classes: Array | None = None) -> tuple[Array, Array]:
    """The classes [C] and each sample's index into them, int64 [n]; `classes` are given or found, and integers."""
    from sklearn.utils.multiclass import check_classification_targets

    labels = as_labels(y, n, name)
    if classes is None:
        check_classification_targets(labels)
        classes = as_classes(labels)
    codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    unknown = classes[codes] != labels
    if unknown.any():
        raise ValueError(
            f"y must hold the classes {', '.join(map(str, classes))}, got {labels[unknown][0]!r}; pass classes= if "
            f"there are others"
        )
    return classes, codes


def check_block(rows: RowBlocks, block: Array, start: int, dtype: Any = np.float32, *, optional: bool = False) -> None:
    """Raise for NaN or inf in a block, and for values that `dtype`, which it will be computed in, cannot hold;
    `optional`: the caller can be told not to check.
    """
    with errstate(over="ignore", invalid="ignore"):
        check_finite_rows(block.sum(axis=1, dtype=np.float64), block, start, rows.name, optional=optional)
        narrowed = np.dtype(dtype).itemsize < block.dtype.itemsize
        if narrowed and len(block) and np.abs(block).max() > np.finfo(dtype).max:
            raise ValueError(
                f"{rows.name} has values beyond {np.dtype(dtype)}, which the network computes in; scale it"
            )


def rows_on_host(X: Any, n_features: int | None = None) -> RowBlocks:
    """X as rows; arrays on a device are refused, because training reads X on the host."""
    rows = RowBlocks(X, n_features)
    if rows.device is not None:
        raise ValueError(f"X is on {rows.device}, and this classifier reads X on the host; pass X.cpu() or X.get()")
    return rows
