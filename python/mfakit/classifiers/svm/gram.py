"""Inner products and squared distances [n, n] of samples, from which support vector machines are trained.

All float64 and centred: ‖x - s‖² = ‖x - c‖² + ‖s - c‖² - 2 (x - c)·(s - c) is off by some 1e-15 of its two squares,
which far from the origin would be all there is of it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._arrays.options import Options
from ..._arrays.rows import RowBlocks, check_finite_rows
from ..._threads.process import interruptible, product_threads
from ..._threads.room import PRODUCT_BYTES, has_room

__all__ = ["LIBSVM_BYTES", "THREAD_BYTES", "centered_gram", "check_room", "data_mean", "squared_distances"]

Array = NDArray[Any]

# Features that are converted to float64 and multiplied at a time: enough for the product to run at its rate, few enough
# that the panel [n, PANEL] stays small beside the [n, n] result.
PANEL = 2048
CONVERTED_ROWS = 256  # at a time, so that what is between remains in the cache
TILE = 256  # of the triangle that is mirrored
# What libsvm takes for each entry of the kernel: a float32 and its part of the lists.
LIBSVM_BYTES = 5
# Address space that a thread takes, its stack and its part of malloc.
THREAD_BYTES = 80 * 2**20
HEIGHT = 8192  # rows of the result at a time: OpenBLAS 0.3.30 crashes in an update of 32,000 by several threads


def data_mean(rows: RowBlocks, options: Options) -> Array:
    """The mean [d] of all rows, in one pass that refuses NaN and inf and rows that are all the same."""
    n, d = rows.shape
    total, first, same = np.zeros(d), rows.block(0, 1)[0].copy(), True
    step = options.plan_block(d, 1, 8)
    for start in range(0, n, step):
        block = rows.block(start, min(start + step, n))
        check_finite_rows(block.sum(axis=1, dtype=np.float64), block, start, rows.name)
        total += block.sum(axis=0, dtype=np.float64)
        same = same and bool((block == first).all())
    if n > 1 and same:
        raise ValueError(
            f"all {n} rows of {rows.name} are equal, so nothing tells the classes apart; check {rows.name}"
        )
    return total / n


def centered_gram(rows: RowBlocks, center: Array, options: Options) -> Array:
    """Inner products [n, n] of the rows less `center` [d], summed over panels of their features.

    Every value is converted once, and half the products suffice: BLAS's rank-k update adds A Aᵀ to a triangle.
    """
    n, d = rows.shape
    _check_memory(n, d)
    gram, panel = np.empty((n, n)), np.empty(n * min(PANEL, d))
    height = options.block_rows or CONVERTED_ROWS
    for first in range(0, d, PANEL):
        features = slice(first, min(first + PANEL, d))
        part = panel[: n * (features.stop - first)].reshape(n, -1)
        for start in range(0, n, height):
            stop = min(start + height, n)
            np.subtract(rows.block(start, stop, columns=features), center[features], out=part[start:stop])
        interruptible(_add_products, part, 0.0 if first == 0 else 1.0, gram)
    for start in range(0, n, TILE):
        stop = min(start + TILE, n)
        for left in range(0, start, TILE):
            gram[left : left + TILE, start:stop] = gram[start:stop, left : left + TILE].T
        corner = gram[start:stop, start:stop]
        corner[...] = np.tril(corner) + np.tril(corner, -1).T
    if not np.isfinite(np.diagonal(gram)).all():
        raise ValueError(f"{rows.name} is too large for squared lengths in float64; scale {rows.name} down")
    return gram


def _add_products(A: Array, keep: float, out: Array) -> None:
    """out = A Aᵀ + keep out, for A [n, p] and the lower triangle of out [n, n], both C-contiguous float64."""
    n, p = A.shape
    # In BLAS's order of columns A is its own transpose, and the lower triangle the upper one.
    upper, plain, transposed = ctypes.c_char(b"U"), ctypes.c_char(b"N"), ctypes.c_char(b"T")
    width, stride, one, beta = ctypes.c_int(p), ctypes.c_int(n), ctypes.c_double(1.0), ctypes.c_double(keep)
    for start in range(0, n, HEIGHT):
        side = A[start : start + HEIGHT]
        rows = ctypes.c_int(len(side))
        if start > 0:
            columns = ctypes.c_int(start)
            _blas("dgemm", transposed, plain, columns, rows, width, one, A, width, side, width, beta, out[start:],
                  stride)  # fmt: skip
        _blas("dsyrk", upper, transposed, rows, width, one, side, width, beta, out[start:, start:], stride)


def _blas(name: str, *args: Any) -> None:
    """A routine of BLAS with the GIL free; scalars are ctypes', arrays NumPy's."""
    _routine(name, len(args))(*(arg.ctypes.data if isinstance(arg, np.ndarray) else ctypes.byref(arg) for arg in args))


@cache
def _routine(name: str, n_args: int) -> Callable[..., None]:
    """From what SciPy offers to compiled code: its own wrappers hold the GIL, so that Ctrl-C and every other thread
    would wait for them.
    """
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__[name]
    signature = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    return ctypes.CFUNCTYPE(None, *(ctypes.c_void_p,) * n_args)(pointer(capsule, signature(capsule)))


def squared_distances(gram: Array, center: Array) -> tuple[Array, float]:
    """‖x_i - x_j‖² [n, n] in place of the inner products about `center` [d]; and Σ (x - the mean of all entries)²."""
    squares = np.diagonal(gram).copy()
    for start in range(0, len(gram), 256):
        part = gram[start : start + 256]
        part *= -2.0
        part += squares
        part += squares[start : start + 256, None]
        np.maximum(part, 0.0, out=part)
    np.fill_diagonal(gram, 0.0)
    return gram, float(squares.sum() + len(gram) * ((center - center.mean()) ** 2).sum())


def _check_memory(n: int, d: int) -> None:
    """Refuse what would kill the process: an [n, n] array beyond the machine's memory, where systems overcommit, and
    all that training takes beyond this process's limit.
    """
    from scipy.linalg import cython_blas  # noqa: F401 (its threads are counted only once it is loaded)

    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        total = 8 * n * n
    if 8 * n * n > total:
        raise MemoryError(
            f"the kernel matrix of {n} samples takes {8 * n * n / 2**30:.0f} GiB, and this machine has "
            f"{total / 2**30:.0f}; train on fewer samples"
        )
    products = PRODUCT_BYTES * product_threads()
    check_room(n, (8 + LIBSVM_BYTES) * n**2 + 8 * n * min(PANEL, d) + THREAD_BYTES + products)


def check_room(n: int, size: int) -> None:
    """Refuse n samples where `size` bytes cannot be had: libsvm and OpenBLAS would crash, or wait for them for ever."""
    if not has_room(size):
        raise MemoryError(
            f"a support vector machine of {n} samples takes up to {size / 2**20:.0f} MiB more, which this process "
            "cannot have; train on fewer samples or raise its limit"
        )
