"""Arrays in and out: contiguous blocks of rows of any container for the kernels, results in the same container.

Nothing here copies X whole: a block is a view where the layout allows it and a copy of that block where it does not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from .._errors import BackendUnavailable
from .._threads.ahead import ahead
from .._threads.process import errstate
from .containers import (
    as_host_array,
    check_container,
    check_grad,
    check_real_tensor,
    is_cupy,
    is_torch,
    read_array,
    to_numpy,
)
from .frames import from_frame, with_index
from .pages import Pages

__all__ = [
    "RowBlocks",
    "array_module",
    "as_labels",
    "check_finite_rows",
    "class_indices",
    "gather",
    "is_cupy",
    "is_torch",
    "on_device_of",
    "returned",
    "scatter",
    "to_numpy",
    "wrap_like",
]

# Values of the rows that are taken from a file before its pages are given back.
TAKEN_VALUES = 2**20


def array_module(X: Any) -> Any:
    """CuPy for its arrays, NumPy for everything else."""
    if not is_cupy(X):
        return np
    from ..backends._cuda.engine import engine

    return engine(X.device.id).xp


def gather(A: Any, rows: Any) -> Any:
    """A[rows] for indices or a mask on the host, wherever A is."""
    return A[array_module(A).asarray(rows)] if is_cupy(A) else A[rows]


def scatter(A: Any, rows: Any, values: Any) -> None:
    """A[rows] = values for indices or a mask on the host; A and the values are in one place."""
    A[array_module(A).asarray(rows) if is_cupy(A) else rows] = values


def _compute_dtype(dtype: Any, name: str) -> np.dtype[Any]:
    """float64 stays, every other real type is computed in float32."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers (float or integer), got dtype {dtype}; convert it first")
    return np.dtype(np.float64 if dtype.kind == "f" and dtype.itemsize >= 8 else np.float32)


def _from_torch(X: Any, name: str) -> tuple[Any, np.dtype[Any], str | None]:
    import torch

    check_grad(X, name)
    if X.device.type == "meta":
        raise BackendUnavailable(f"{name} is on meta, where tensors have no values")
    if X.device.type not in ("cpu", "cuda"):
        raise BackendUnavailable(f"{name} is on {X.device}, and there is no backend for it; pass {name}.cpu()")
    check_real_tensor(X, name)
    device = None if X.device.type == "cpu" else f"cuda:{X.device.index or 0}"
    if X.dtype == torch.bfloat16:
        return X, np.dtype(np.float32), device
    array = X.resolve_neg().numpy() if device is None else _device_view(X.resolve_neg(), name)
    return array, _compute_dtype(array.dtype, name), device


def _device_view(X: Any, name: str) -> Any:
    """A CUDA tensor as a CuPy array on the same memory; DLPack makes CuPy's stream wait for torch's."""
    try:
        import cupy
    except ImportError as error:
        raise BackendUnavailable(
            f"{name} is on {X.device}, and CuPy, which runs the kernels there, is missing: {error}"
        ) from None
    import torch

    with torch.cuda.device(X.device):  # torch's allocator must not give the memory away while CuPy's stream reads it
        stream = cupy.cuda.get_current_stream().ptr
        X.record_stream(
            torch.cuda.ExternalStream(stream, device=X.device)  # type: ignore[no-untyped-call]
            if stream
            else torch.cuda.default_stream(X.device)
        )
    return cupy.from_dlpack(X)


def _from_any(X: Any, name: str) -> tuple[Any, np.dtype[Any], str | None]:
    if is_cupy(X):
        if type(X).__name__ not in ("ndarray", "DeviceArray"):
            raise TypeError(f"{name} must be a dense CuPy array, got {type(X).__name__}")
        return X, _compute_dtype(X.dtype, name), f"cuda:{X.device.id}"
    if isinstance(X, (str, bytes)):
        raise TypeError(f"{name} must be real numbers, got text; a path of samples must end in .npy or .safetensors")
    array = read_array(from_frame(X, name), name)
    return array, _compute_dtype(array.dtype, name), None


class RowBlocks:
    """An array-like seen as blocks of rows.

    Parameters
    ----------
    X : array-like, [n, d]
        NumPy array in any layout, memory map, torch tensor, CuPy array, or nested sequence.
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
    device : str or None
        Where X is: None for the host, else such as "cuda:0".

    Raises
    ------
    TypeError
        For bool, object, string and complex data, for tensors that require grad, and for containers that cannot be
        read as an array without loss: sparse and masked ones, dask's, mappings, iterators, datasets, modules.
    ValueError
        For a wrong rank or width.
    """

    def __init__(self, X: Any, n_features: int | None = None, name: str = "X") -> None:
        check_container(X, name)
        self._array, self.dtype, self.device = _from_torch(X, name) if is_torch(X) else _from_any(X, name)
        self._torch_rows = is_torch(self._array)
        self.like = X
        self.name = name
        shape = tuple(int(s) for s in self._array.shape)
        width = "d" if n_features is None else n_features
        if len(shape) != 2:
            its = name if name.isidentifier() else "X"  # "block 3"
            flat = f"flatten each sample, {its}.reshape(len({its}), -1)"
            remedy = flat if len(shape) > 2 else f"a single sample is {its}[None, :]"
            raise ValueError(f"{name} must be [n, {width}], got shape {shape}; {remedy}")
        if n_features is not None and shape[1] != n_features:
            raise ValueError(f"{name} must be [n, {n_features}] (this model has d={n_features}), got {shape}")
        self.shape = (shape[0], shape[1])
        self._pages = None if self.device is not None or self._torch_rows else Pages.of(self._array)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def narrow(self) -> np.dtype[Any]:
        """The dtype in which a block of a host array takes the fewest bytes on its way to a device, which converts it
        to :attr:`dtype` as the host would: X's own if that is narrower.
        """
        if self._torch_rows or self._array.dtype.itemsize >= self.dtype.itemsize:
            return self.dtype
        own: np.dtype[Any] = self._array.dtype.newbyteorder("=")
        return own

    def block(self, start: int, stop: int, dtype: Any = None, columns: slice = slice(None)) -> Any:
        """Rows start:stop where X is, or some columns of them, C-contiguous, aligned, in native byte order; never to
        be written to.
        """
        rows = self._array[start:stop, columns]
        if self._pages is not None:
            self._pages.check(rows, self.name)
        if self._torch_rows:
            rows = rows.float()
            rows = rows.numpy() if self.device is None else _device_view(rows, self.name)
        dtype = self.dtype if dtype is None else dtype
        if self.device is None:
            return np.require(rows, dtype=dtype, requirements=["C", "A"])
        return rows if rows.dtype == dtype and rows.flags.c_contiguous else rows.astype(dtype, order="C")

    def walk(self, start: int, stop: int, step: int, dtype: Any = None) -> Iterator[tuple[int, Any]]:
        """Blocks of `step` rows from row `start` to `stop`, as of :meth:`block`, with the numbers of their first rows.
        Of a memory map the next block is read while one is in use, whose pages are given back afterwards.
        """
        parts = [(first, min(first + step, stop)) for first in range(start, stop, step)]
        pages = self._pages
        if pages is None or not pages.by_rows:
            for first, last in parts:
                yield first, self.block(first, last, dtype)
            return

        def read(part: tuple[int, int], unwanted: threading.Event) -> None:
            pages.read(self._array[slice(*part)], unwanted)

        for first, last in ahead(parts, read):
            yield first, self.block(first, last, dtype)
            pages.give_back(self._array[first:last])

    def overlaps(self, other: Any) -> bool:
        """Whether an array of the same device shares memory with this one, or may."""
        if self._torch_rows:  # bfloat16: blocks are copies
            return False
        if self.device is not None:
            return bool(array_module(other).may_share_memory(self._array, other))
        try:
            return np.shares_memory(self._array, other, max_work=10_000)  # type: ignore[arg-type] # any int is taken
        except np.exceptions.TooHardError:
            return True

    def take(self, rows: np.ndarray[Any, Any], dtype: Any = None) -> Any:
        """The rows of the given indices (a host array) as a new array where X is."""
        dtype = self.dtype if dtype is None else dtype
        if self._torch_rows:
            taken = self._array[rows.tolist()].float()
            return (
                np.asarray(taken.numpy(), dtype)
                if self.device is None
                else _device_view(taken, self.name).astype(dtype)
            )
        if self.device is None:
            return np.array(self._array[rows], dtype=dtype, order="C") if self._pages is None else (
                self._from_file(self._pages, rows, dtype)
            )  # fmt: skip
        return self._array[rows.tolist()].astype(dtype, order="C")

    def _from_file(self, pages: Pages, rows: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
        """:meth:`take` of a memory map, which does not leave all of the pages that the rows are on in memory."""
        pages.check(self._array, self.name)
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        taken = np.empty((len(index), self.shape[1]), dtype)
        step = max(1, TAKEN_VALUES // max(self.shape[1], 1))
        for first in range(0, len(index), step):
            taken[first : first + step] = self._array[index[first : first + step]]
            pages.give_back(self._array)
        return taken


def on_device_of(array: Any) -> AbstractContextManager[Any]:
    """Makes the device that an array is on the current one: CuPy's operators run on that, not on the array's own."""
    if not is_cupy(array):
        return nullcontext()
    from ..backends._cuda.engine import engine

    context: AbstractContextManager[Any] = engine(array.device.id).active()
    return context


def check_finite_rows(
    norms: Any, block: Any, start: int, name: str, *, optional: bool = True, also: str = ""
) -> None:  # fmt: skip
    """Raise for the first row of `block` with NaN or inf; `norms` [rows]: sums that such a value makes NaN or inf. The
    caller's own caller has a ``check_finite`` to switch this off where it is `optional`; `also` says what else to do.
    """
    for row in np.flatnonzero(~np.isfinite(to_numpy(norms))):
        # A finite row may still overflow its norm, so the row itself decides.
        if not np.isfinite(to_numpy(block[int(row)])).all():
            remedy = "clean it or pass check_finite=False" if optional else "clean it"
            raise ValueError(f"{name} has NaN or inf, first in row {start + row}; {remedy}{also}")


def wrap_like(result: Any, like: Any) -> Any:
    """The result in the container of `like`: a torch tensor for a torch tensor (sharing memory), CuPy for CuPy, else
    NumPy; on the device of `like`.
    """
    if is_torch(like):
        import torch

        if is_cupy(result):
            with on_device_of(result):  # torch's stream is made to wait for the current stream of the current device
                return torch.utils.dlpack.from_dlpack(result)
        return torch.from_numpy(result).to(like.device)
    if is_cupy(like) and not is_cupy(result):
        from ..backends._cuda.engine import engine

        with on_device_of(like):  # a copy goes to the current device
            return engine(like.device.id).asarray(result)
    return result


def returned(result: Any, like: Any, out: Any = None, features: bool = False) -> Any:
    """What a caller gets of a result of rows: its own `out`, or the result in the container of `like`, pandas' with its
    index, and with its columns if they are `features`.
    """
    wrapped = wrap_like(result, like)  # for a CUDA tensor also what makes torch's stream wait for CuPy's
    return with_index(wrapped, like, features) if out is None else out


def as_labels(y: Any, n: int, n_classes: int, name: str = "y") -> np.ndarray[Any, Any]:
    """Labels as int64 [n], each one of 0 .. n_classes - 1."""
    labels = as_host_array(y, name)
    if labels.shape != (n,):
        raise ValueError(f"{name} must have one label per sample, shape ({n},), got {labels.shape}")
    if labels.dtype == object and all(isinstance(label, int) for label in labels):
        labels = labels.astype(np.int64)
    with errstate(invalid="ignore"):  # NaN
        as_int = labels.astype(np.int64) if labels.dtype.kind in "iufb" else None
    if as_int is None or (as_int != labels).any() or (n and (as_int.min() < 0 or as_int.max() >= n_classes)):
        raise ValueError(
            f"{name} must hold the classes 0 to {n_classes - 1} of this classifier, got values {_some(labels)}"
        )
    return as_int


def _some(labels: np.ndarray[Any, Any]) -> str:
    """The first distinct labels, in their order if they have one."""
    distinct = labels[:100].tolist() if labels.dtype == object else np.unique(labels).tolist()
    kind = f" ({type(distinct[0]).__name__})" if labels.dtype.kind in "USO" else ""  # "1" is not 1
    return ", ".join(list(dict.fromkeys(map(str, distinct)))[:5]) + kind


def class_indices(
    y: Any, classes: np.ndarray[Any, Any] | None, n: int, n_classes: int, name: str = "y"
) -> np.ndarray[Any, Any]:
    """Labels, which are values of `classes`, as indices into it, int64 [n]; without classes as :func:`as_labels`."""
    if classes is None:
        return as_labels(y, n, n_classes, name)
    labels = as_host_array(y, name)
    if labels.shape != (n,):
        raise ValueError(f"{name} must have one label per sample, shape ({n},), got {labels.shape}")
    index = {label: c for c, label in enumerate(classes.tolist())}
    codes = np.array([index.get(label, -1) for label in labels.tolist()], np.int64)
    if (codes < 0).any():
        ordinary = np.array_equal(classes, np.arange(n_classes))
        names = f"0 to {n_classes - 1}" if ordinary else ", ".join(map(str, classes[:10]))
        found = _some(labels[codes < 0])
        raise ValueError(f"{name} must hold the classes {names} of this classifier, got values {found}")
    return codes
