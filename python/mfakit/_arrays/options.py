"""The keyword arguments that every function on arrays shares."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

import numpy as np

from .._checks import MOST_INT32, check_choice, check_integers, check_switches
from .._io.mapped import NewArray
from .._lazy import lazy
from .._threads.limits import default_threads
from ..backends import Backend
from .pages import Pages
from .rows import _device_view, is_cupy, is_torch

if TYPE_CHECKING:
    from .rows import RowBlocks

__all__ = [
    "ArrayOptions",
    "KernelOptions",
    "Method",
    "Missing",
    "Options",
    "Precision",
    "RunOptions",
    "no_out",
    "only_on_host",
    "refuse_unknown",
]

Method = Literal["auto", "dense", "pruned", "residual"]
Precision = Literal["float32", "float64", "tf32"]
# What NaN in samples is: a mistake, or a feature that is not known, which is integrated out.
Missing = Literal["error", "marginal"]

# Blocks below a thousand rows of 12,288 features run the product visibly below its rate; above, nothing more is gained.
BLOCK_BYTES = 80 * 2**20
# Wide rows may take more: with fewer blocks the threads of the product and of the kernels take turns less often.
TALL_ROWS, TALL_BYTES = 1536, 160 * 2**20
BLOCK_FLOPS = 45 * 10**9
# Every thread has buffers of its own: more than this, or than the machine has cores, are not started.
MOST_THREADS = 256


@dataclass(frozen=True)
class Options:
    """How to compute, never what.

    Parameters
    ----------
    backend : {"auto", "native", "numba", "numpy", "cuda"}
        Whose kernels run. "auto": cuda for arrays on a device, else native where it was compiled, else numba. "cuda"
        with arrays on the host streams them through the device.
    method : {"auto", "dense", "pruned", "residual"}
        "dense": the coarse step is the block product of all components, and those that can matter are refined.
        "pruned": components are bounded from a few coordinates first, and those that could carry more than e^-40 of a
        sample's density are refined (docs/pruning.md). "residual": every component from its residual, slow and exact.
        "auto" counts what bounds leave of a pilot block, and takes what that makes cheaper, "dense" where that takes
        some 50 ms or less, and on a device; what it took is in the log.
    precision : {None, "float32", "float64", "tf32"}
        What the product runs in. None: X's own dtype, and on a CUDA device its tensor cores' TF32 wherever the product
        only says which components can matter: these are recomputed from the residuals in float64, so that the answer is
        as right as ever, and where TF32 leaves too many of them, X's own dtype is taken. "tf32" insists on it. The
        result has X's dtype all the same.
    check_finite : bool
        Refuse NaN and inf in X. False skips the check; then only the rows that have them become NaN.
    block_rows : int or None
        Samples per block; None fits a block to the cache, or to a device's free memory. Results do not depend on it.
    n_threads : int or None
        Threads of our own kernels. None: as many CPUs as this process may use (affinity, cgroup quota), and no more
        than OMP_NUM_THREADS, OMP_THREAD_LIMIT, LOKY_MAX_CPU_COUNT and threadpoolctl's limits in force allow; threads of
        one pool share them. Where rows are shared among threads, products run in them, too, and no more than NumPy's
        BLAS may have are started; else products use BLAS's own.
    out : array, path or None
        Where the result goes: an array, a memory map among them, or a new .npy file, which is whole or, after an error,
        not there; what is returned is then that file, mapped read-only.
    """

    backend: Backend = "auto"
    method: Method = "auto"
    precision: Precision | None = None
    check_finite: bool = True
    block_rows: int | None = None
    n_threads: int | None = None
    out: Any = None

    def __new__(cls, *_: Any, **given: Any) -> Options:
        """An object to initialise, unless an option is none: the generated __init__ would not say which there are."""
        refuse_unknown("", given, ())
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_switches({"check_finite": self.check_finite})
        check_choice("method", self.method, get_args(Method))
        if self.precision is not None:
            check_choice("precision", self.precision, get_args(Precision), also="or None")
        for name in ("block_rows", "n_threads"):
            value = getattr(self, name)
            if value is not None:
                check_integers({name: value}, 1, MOST_INT32, also="or None")

    @lazy
    def threads(self) -> int:
        """Threads to start: those asked for, else what :func:`mfakit._threads.limits.default_threads` says."""
        if self.n_threads is None:
            return default_threads()
        return min(int(self.n_threads), max(MOST_THREADS, os.cpu_count() or 1))

    @property
    def product(self) -> str | None:
        """The dtype that products run in, None for X's."""
        return "float32" if self.precision == "tf32" else self.precision

    def result(self, shape: tuple[int, ...], dtype: Any, X: Any = None) -> Any:
        """The array that the result is written to: `out`, checked, or a new one where X is (a RowBlocks)."""
        device, out = None if X is None else X.device, self.out
        if out is None:
            if device is None:
                return np.empty(shape, dtype)
            from ..backends import get_arrays, get_backend

            return get_arrays(get_backend(self.backend, device), device).empty_result(shape, dtype, X)
        if isinstance(out, NewArray):
            if device is not None:
                raise ValueError(f"X is on {device} and out is a file: pass out=None, and save what comes back")
            return out.make(shape, dtype)
        if is_torch(out) and out.requires_grad:
            raise ValueError("out requires grad, which this function would silently drop; pass out.detach()")
        if isinstance(out, np.ma.MaskedArray):
            raise TypeError("out is a masked array, whose mask would be lost; pass out.data")
        if is_torch(out) and out.device.type == "cuda":
            out = _device_view(out, "out")
        on_device = is_cupy(out)
        if on_device != (device is not None) or (on_device and f"cuda:{out.device.id}" != device):
            place = f"cuda:{out.device.id}" if on_device else "the host"
            raise ValueError(f"X is on {device or 'the host'} and out on {place}: they must be on the same device")
        if not (on_device or isinstance(out, np.ndarray) or is_torch(out)):
            raise TypeError(f"out must be a NumPy or CuPy array or a torch tensor, got a {type(out).__name__}")
        array = np.asarray(out) if is_torch(out) else out
        writeable = on_device or array.flags.writeable
        if array.shape != shape or array.dtype != dtype or not writeable:
            raise ValueError(
                f"out must be a writeable {np.dtype(dtype)} array of shape {shape}, got {array.dtype} {array.shape}"
            )
        if X is not None and X.overlaps(array):
            raise ValueError(f"out shares memory with {X.name}, which is read after the first results are written")
        pages = Pages.of(array)
        if pages is not None:
            pages.reserve()
        return array

    def plan_block(self, d: int, columns: int, itemsize: int) -> int:
        """Rows per block: tall enough for the product to run at its full rate, within BLOCK_BYTES of buffers, and
        within a fraction of a second, so that Ctrl-C is answered.
        """
        if self.block_rows is not None:
            return int(self.block_rows)
        row_bytes = max(itemsize * d + (itemsize + 16) * columns, 1)
        by_bytes = max(BLOCK_BYTES // row_bytes, min(TALL_ROWS, TALL_BYTES // row_bytes))
        by_flops = BLOCK_FLOPS // max(2 * d * columns, 1)
        return int(max(1, min(max(by_bytes, 64), max(by_flops, 16), 16384)))


class KernelOptions(TypedDict, total=False):
    """The options of functions that take no samples, for type checkers; :class:`Options` says what they mean."""

    backend: Backend
    n_threads: int | None


class RunOptions(KernelOptions, total=False):
    """The options of functions of samples whose result is no single array."""

    method: Method
    precision: Precision | None
    check_finite: bool
    block_rows: int | None


class ArrayOptions(RunOptions, total=False):
    """The options of functions of samples that return an array."""

    out: Any


def refuse_unknown(function: str, given: Iterable[str], own: Iterable[str]) -> None:
    """Raise TypeError for a keyword argument that is neither an option nor one of the function's `own`, with the names
    of all that there are.
    """
    known = [*own, *(field.name for field in fields(Options))]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            raise TypeError(
                f"{function}{' ' if function else ''}got an unexpected keyword argument {name!r}{meant}; the keyword "
                f"arguments are {', '.join(known)}"
            )


def no_out(function: str, options: Mapping[str, object]) -> None:
    """Refuse ``out`` where a result is no single array of numbers in X's dtype."""
    if options.get("out") is not None:
        raise TypeError(f"{function} takes no out: its result is made anew; copy what you need of it")


def only_on_host(function: str, options: Options, X: RowBlocks) -> None:
    """Refuse samples on a device, and the backend of a device, where a function computes on the host."""
    if X.device is None and options.backend != "cuda":
        return
    what = 'backend="cuda" is a device\'s' if X.device is None else f"X is on {X.device}"
    raise ValueError(f"{function} computes on the host, and {what}; pass X.get() or X.cpu(), and a backend of the host")
