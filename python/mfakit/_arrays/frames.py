"""Frames and columns of pandas and polars: their values, and pandas' results, which have the index of what came in.

Neither library is imported: an object of theirs shows that it is there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["check_columns", "from_frame", "is_pandas", "with_index", "without_index"]


def is_pandas(X: Any) -> bool:
    """Whether X is a DataFrame of pandas."""
    frame = getattr(sys.modules.get("pandas"), "DataFrame", None)
    return frame is not None and isinstance(X, frame)


def with_index(result: Any, like: Any, features: bool = False) -> Any:
    """A result of rows of `like`: for a DataFrame a Series [n], or a DataFrame [n, k], with its index, and with its
    columns if they are `features`. Results with more axes, and those of other containers, stay as they are.
    """
    if not is_pandas(like) or result.ndim > 2:
        return result
    pandas: Any = sys.modules["pandas"]
    if result.ndim == 1:
        return pandas.Series(result, index=like.index, copy=False)
    return pandas.DataFrame(result, index=like.index, columns=like.columns if features else None, copy=False)


def without_index(X: Any) -> Any:
    """A DataFrame's values, for what scikit-learn's own tools slice as an array; everything else stays as it is."""
    return np.asarray(from_frame(X, "X")) if is_pandas(X) else X


def from_frame(X: Any, name: str) -> Any:
    """A frame's or a column's values, or the frame where NumPy reads it as it is; nullable and Arrow-backed numbers as
    NumPy's. Everything else comes back.

    What is missing in a frame is NaN, which the check of its rows finds; in a column, of labels or weights, an error.
    """
    library = type(X).__module__.split(".")[0]
    if library not in ("pandas", "polars"):
        return X
    if library == "polars":
        if hasattr(X, "columns"):
            check_columns(name, X.columns, X.dtypes, [dtype.is_numeric() for dtype in X.dtypes])
        return X
    if not hasattr(X, "columns"):
        plain = getattr(X.dtype, "numpy_dtype", None)
        if plain is None or plain.kind not in "iufb":
            return X
        missing = np.flatnonzero(np.asarray(X.isna()))
        if len(missing) and plain.kind != "f":
            raise ValueError(f"{name} has missing values, first in row {missing[0]}; fill or drop them")
        return X.to_numpy(dtype=plain, na_value=np.nan) if plain.kind == "f" else X.to_numpy(dtype=plain)
    dtypes = [getattr(dtype, "numpy_dtype", dtype) for dtype in X.dtypes]
    check_columns(name, X.columns, X.dtypes, [isinstance(t, np.dtype) and t.kind in "iuf" for t in dtypes])
    if all(isinstance(dtype, np.dtype) for dtype in X.dtypes):
        return X
    dtype = np.result_type(*dtypes)
    return X.to_numpy(dtype=dtype if dtype.kind == "f" else np.dtype(np.float32), na_value=np.nan)


def check_columns(name: str, columns: Iterable[Any], dtypes: Iterable[Any], numbers: Iterable[bool]) -> None:
    """Raise TypeError that names a frame's columns of other things than numbers."""
    wrong = [f"{c} ({t})" for c, t, number in zip(columns, dtypes, numbers, strict=True) if not number]
    if wrong:
        raise TypeError(
            f"{name} must be real numbers (float or integer), got columns {', '.join(wrong[:5])}; convert or drop them"
        )
