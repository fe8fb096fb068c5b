"""The door for arrays: any container in, contiguous blocks of rows for the kernels, the same container out.

Nothing here copies X whole: a block is a view where the layout allows it and a copy of that block where it does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._errors import BackendUnavailable

__all__ = ["RowBlocks", "as_labels", "check_finite_rows", "is_torch", "wrap_like"]


def is_torch(X: Any) -> bool:
    return type(X).__module__.split(".")[0] == "torch"


def _is_sparse(X: Any) -> bool:
    return type(X).__module__.startswith("scipy.sparse")


def _compute_dtype(dtype: Any, name: str) -> np.dtype[Any]:
    """float64 stays, every other real type is computed in float32."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers (float or integer), got dtype {dtype}; convert it first")
    return np.dtype(np.float64 if dtype.kind == "f" and dtype.itemsize >= 8 else np.float32)


def _from_torch(X: Any, name: str) -> tuple[Any, np.dtype[Any]]:
    import torch

    if X.requires_grad:
        raise TypeError(f"{name} requires grad, which this function would silently drop; pass {name}.detach()")
    if X.device.type != "cpu":
        raise BackendUnavailable(f"{name} is on {X.device}, and this version has no cuda backend; pass {name}.cpu()")
    if X.layout != torch.strided:
        raise TypeError(f"{name} must be dense, got a {X.layout} tensor; pass {name}.to_dense()")
    if X.dtype == torch.bfloat16:
        return X, np.dtype(np.float32)
    if X.dtype == torch.bool or X.dtype.is_complex:
        raise TypeError(f"{name} must be real numbers (float or integer), got dtype {X.dtype}; convert it first")
    array = X.resolve_neg().numpy()
    return array, _compute_dtype(array.dtype, name)


def _from_any(X: Any, name: str) -> tuple[Any, np.dtype[Any]]:
    module = type(X).__module__.split(".")[0]
    if module == "cupy":
        raise BackendUnavailable(f"{name} is a CuPy array, and this version has no cuda backend; pass {name}.get()")
    if _is_sparse(X):
        raise TypeError(f"{name} is a sparse matrix; pass {name}.toarray() or blocks of it")
    if module == "dask":
        raise TypeError(f"{name} is a dask collection; pass {name}.compute() or map over its blocks")
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; pass {name}.filled(...) or use MFA.impute(X, mask)")
    array = np.asarray(X)
    return array, _compute_dtype(array.dtype, name)


class RowBlocks:
    """An array-like seen as blocks of rows.

    Parameters
    ----------
    X : array-like, [n, d]
        NumPy array in any layout, memory map, CPU torch tensor, or nested sequence.
    n_features : int or None
        The width that the model expects; None accepts any.
    name : str
        The argument's name in error messages.

    Attributes
    ----------
    shape : tuple of int
        (n, d).
    dtype : numpy.dtype
        The dtype that X is computed in and that results have: float32 or float64.

    Raises
    ------
    TypeError
        For bool, object, string and complex data, and for sparse, masked and dask containers.
    ValueError
        For a wrong rank or width.
    """

    def __init__(self, X: Any, n_features: int | None = None, name: str = "X") -> None:
        self._array, self.dtype = _from_torch(X, name) if is_torch(X) else _from_any(X, name)
        self._torch_rows = is_torch(self._array)
        self.like = X
        self.name = name
        shape = tuple(int(s) for s in self._array.shape)
        width = "d" if n_features is None else n_features
        if len(shape) != 2:
            raise ValueError(f"{name} must be [n, {width}], got shape {shape}; a single sample is {name}[None, :]")
        if n_features is not None and shape[1] != n_features:
            raise ValueError(f"{name} must be [n, {n_features}] (this model has d={n_features}), got {shape}")
        self.shape = (shape[0], shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def block(self, start: int, stop: int, dtype: Any = None) -> np.ndarray[Any, Any]:
        """Rows start:stop, C-contiguous, aligned, in native byte order; never to be written to."""
        rows = self._array[start:stop]
        if self._torch_rows:
            rows = rows.float().numpy()
        block: np.ndarray[Any, Any] = np.require(
            rows, dtype=self.dtype if dtype is None else dtype, requirements=["C", "A"]
        )
        return block

    def take(self, rows: np.ndarray[Any, Any], dtype: Any = None) -> np.ndarray[Any, Any]:
        """The rows of the given indices, as a new array."""
        if self._torch_rows:
            taken = self._array[rows.tolist()].float().numpy()
            return np.asarray(taken, dtype=self.dtype if dtype is None else dtype)
        return np.array(self._array[rows], dtype=self.dtype if dtype is None else dtype, order="C")


def check_finite_rows(norms: np.ndarray[Any, Any], block: np.ndarray[Any, Any], start: int, name: str) -> None:
    """Raise for the first row of `block` with NaN or inf; `norms` [rows] are any sums that such a value spoils."""
    for row in np.flatnonzero(~np.isfinite(norms)):
        # A finite row may still overflow its norm, so the row itself decides.
        if not np.isfinite(block[row]).all():
            raise ValueError(f"{name} has NaN or inf, first in row {start + row}; clean it or pass check_finite=False")


def wrap_like(result: np.ndarray[Any, Any], like: Any) -> Any:
    """The result in the container of `like`: a torch tensor for a torch tensor (sharing memory), else NumPy."""
    if not is_torch(like):
        return result
    import torch

    return torch.from_numpy(result)


def as_labels(y: Any, n: int, n_classes: int, name: str = "y") -> np.ndarray[Any, Any]:
    """Labels as int64 [n], each one of 0 .. n_classes - 1."""
    labels = np.asarray(y.cpu() if is_torch(y) else y)
    if labels.shape != (n,):
        raise ValueError(f"{name} must have one label per sample, shape ({n},), got {labels.shape}")
    as_int = labels.astype(np.int64) if labels.dtype.kind in "iufb" else None
    if as_int is None or (as_int != labels).any() or (n and (as_int.min() < 0 or as_int.max() >= n_classes)):
        found = ", ".join(map(str, np.unique(labels)[:5]))
        raise ValueError(f"{name} must hold the classes 0 to {n_classes - 1} of this classifier, got values {found}")
    return as_int
