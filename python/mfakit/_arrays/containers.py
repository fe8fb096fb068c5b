"""What a caller may pass as an array, what NumPy would read wrongly or not at all, and what to pass instead."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .._errors import BackendUnavailable
from .frames import from_frame

__all__ = [
    "as_host_array",
    "check_container",
    "check_grad",
    "check_numpy_has",
    "check_real_tensor",
    "is_cupy",
    "is_dask",
    "is_torch",
    "read_array",
    "sum_tolerance",
    "to_numpy",
]

Array = np.ndarray[Any, Any]

# DLPack's types of memory that the host reads: its own, and page-locked for CUDA or ROCm.
HOST_DEVICES = (1, 3, 11)


def _library(X: Any) -> str:
    return type(X).__module__.split(".")[0]


def is_torch(X: Any) -> bool:
    """Whether X is a tensor (or a parameter) of torch."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(X, tensor)


def is_cupy(X: Any) -> bool:
    """Whether X is of CuPy."""
    return _library(X) == "cupy"


def is_dask(X: Any) -> bool:
    """Whether X is an array of dask; dask is not loaded for the question."""
    array = getattr(sys.modules.get("dask.array"), "Array", None)
    return array is not None and isinstance(X, array)


def to_numpy(X: Any, name: str = "the array") -> Array:
    """A small array of any container on the host, bfloat16 as float32; a graph of torch's ends here, and an array of
    dask, such as labels, is computed.

    Raises
    ------
    TypeError
        For what NumPy would read wrongly, see :func:`check_container`.
    """
    X = X.compute() if is_dask(X) else X
    check_container(X, name)
    if is_torch(X):
        if X.device.type == "meta":
            raise BackendUnavailable(f"got a tensor of shape {tuple(X.shape)} on meta, where tensors have no values")
        check_numpy_has(X, name)
        X = X.detach().cpu()
        X = X.float() if str(X.dtype) == "torch.bfloat16" else X
        X = X.resolve_neg().resolve_conj()
    if is_cupy(X):
        return np.asarray(X.get())
    return read_array(from_frame(X, name), name)


def as_host_array(X: Any, name: str) -> Array:
    """Labels or sample weights as :func:`to_numpy`; a tensor that requires grad is refused.

    Raises
    ------
    TypeError
        For a tensor that requires grad, and as :func:`to_numpy`.
    """
    check_grad(X, name)
    return to_numpy(X, name)


def check_grad(X: Any, name: str) -> None:
    """Raise TypeError for a tensor whose graph NumPy's side would cut silently."""
    if is_torch(X) and X.requires_grad:
        raise TypeError(
            f"{name} requires grad, which this function would silently drop; pass {name}.detach(), or, for gradients "
            f"in the samples, use mfakit.torch.MFAModule, BayesClassifierModule or SVMModule"
        )


def check_numpy_has(X: Any, name: str) -> None:
    """Raise TypeError for a tensor of a layout or dtype that NumPy lacks, such as float8."""
    if str(X.layout) != "torch.strided":
        raise TypeError(f"{name} must be dense, got a {X.layout} tensor; pass {name}.to_dense()")
    if X.is_quantized or str(X.dtype).startswith(("torch.float8", "torch.float4")):
        remedy = "dequantize" if X.is_quantized else "float"
        raise TypeError(f"{name} has dtype {X.dtype}, which NumPy lacks; pass {name}.{remedy}()")


def check_real_tensor(X: Any, name: str) -> None:
    """Raise TypeError for a tensor that is not of dense real numbers."""
    check_numpy_has(X, name)
    if str(X.dtype) == "torch.bool" or X.dtype.is_complex:
        raise TypeError(f"{name} must be real numbers (float or integer), got dtype {X.dtype}; convert it first")


def check_container(X: Any, name: str) -> None:
    """Raise TypeError, in one sentence with the remedy, for anything that cannot be read as an array without loss."""
    message = _refusal(X, name, type(X).__name__)
    if message is not None:
        raise TypeError(f"{name} {message}")


def _refusal(X: Any, name: str, kind: str) -> str | None:
    if isinstance(X, np.ndarray | int | float | complex):
        masked = isinstance(X, np.ma.MaskedArray)
        return f"is a masked array; pass {name}.filled(...), or use MFA.impute(X, mask) for samples" if masked else None
    if isinstance(X, list | tuple):
        return f"has masked arrays in it; fill them first, np.ma.filled({name}, ...)" if _has_masked(X) else None
    if type(X).__module__.startswith("scipy.sparse"):
        return f"is a sparse matrix; pass {name}.toarray() or blocks of it"
    if is_torch(X):
        return (
            f"is a nested tensor, whose rows differ in length; pass {name}.to_padded_tensor(0)" if X.is_nested else None
        )
    if is_cupy(X):
        return None
    library = _library(X)
    if library == "dask" or (library == "xarray" and getattr(X, "chunks", None)):
        return _refusal_of_lazy(X, name, f"an xarray {kind} over dask" if library == "xarray" else f"dask's {kind}")
    if isinstance(X, Mapping):
        return f"is a {kind}, whose arrays have names; pass one of them, such as {name}[{next(iter(X), 'name')!r}]"
    if isinstance(X, set | frozenset):
        return f"is a {kind}, which has no order; pass a list or an array"
    if isinstance(X, Iterator):
        return f"is a {kind}, which can be read only once; pass an array, np.stack(list({name})), or use fit_blocks"
    return _refusal_of_torch(X, kind) or (None if _is_array_like(X) else f"must be an array, got {_article(kind)}")


def _refusal_of_lazy(X: Any, name: str, what: str) -> str:
    if is_dask(X):
        return f"is an array of dask, which this function does not take; pass {name}.compute(), or map over its blocks"
    array = {"DataFrame": ".to_dask_array(lengths=True)", "DataArray": ".data"}.get(type(X).__name__)
    also = "" if array is None else f"{name}{array}, an array of dask, or "
    return f"is {what}; pass {also}{name}.compute()"


def _refusal_of_torch(X: Any, kind: str) -> str | None:
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "nn"):
        return None
    if isinstance(X, torch.nn.Module):
        return f"is a torch module, {_article(kind)}; pass the samples, an array [n, d]"
    for what in ("Dataset", "DataLoader"):
        if isinstance(X, getattr(torch.utils.data, what)):
            return (
                f"is a torch {what}, {_article(kind)}; pass its samples as an array [n, d], an iterator of blocks of "
                "them, or, to fit, a callable that returns one to fit_blocks"
            )
    return None


def _is_array_like(X: Any) -> bool:
    """Whether NumPy can read it: an array of some library, a buffer, or a sequence with a length."""
    if isinstance(X, type):
        return False
    if any(hasattr(X, name) for name in ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")):
        return True
    return isinstance(X, str | bytes | memoryview | bytearray) or (hasattr(X, "__len__") and hasattr(X, "__getitem__"))


def _article(kind: str) -> str:
    return "None" if kind == "NoneType" else f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def _has_masked(X: Any) -> bool:
    """Whether a nested sequence has masked arrays in it; rows of numbers are not searched one by one."""
    for part in X:
        if isinstance(part, np.ma.MaskedArray):
            return True
        if isinstance(part, list | tuple) and part and not isinstance(part[0], int | float) and _has_masked(part):
            return True
    return False


def read_array(X: Any, name: str) -> Array:
    """``np.asarray`` with errors that name the argument; an object that has nothing but DLPack is read through that."""
    read = np.from_dlpack if _speaks_dlpack_alone(X, name) else np.asarray
    try:
        array: Array = read(X)
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        if isinstance(X, list | tuple) and any(is_torch(part) or is_cupy(part) for part in X):
            raise TypeError(f"{name} is a {type(X).__name__} of tensors; pass torch.stack({name})") from None
        if "inhomogeneous" in str(error):
            raise ValueError(f"{name} must be rectangular, but its rows have different lengths") from None
        raise TypeError(f"{name} cannot be read as an array, got {_article(type(X).__name__)}: {error}") from None
    if array.dtype == object and array.ndim == 0:
        raise TypeError(f"{name} must be an array of numbers, got {_article(type(X).__name__)}")
    return array


def _speaks_dlpack_alone(X: Any, name: str) -> bool:
    """Whether DLPack is all that NumPy can read X by.

    Raises
    ------
    BackendUnavailable
        For an array on a device that NumPy cannot reach.
    """
    if not (hasattr(X, "__dlpack__") and hasattr(X, "__dlpack_device__")) or isinstance(X, np.ndarray):
        return False
    if any(hasattr(X, way) for way in ("__array__", "__array_interface__", "__array_struct__", "__buffer__")):
        return False
    kind = int(X.__dlpack_device__()[0])
    if kind not in HOST_DEVICES:
        raise BackendUnavailable(
            f"{name} is on a device (DLPack's type {kind}) that only CuPy's and torch's arrays are read from; pass "
            f"cupy.from_dlpack({name}) or torch.from_dlpack({name})"
        )
    return True


def sum_tolerance(value: Any) -> float:
    """How far fractions of this dtype may be from the sum 1: what rounding each to it can do, and at least 1e-5."""
    eps: dict[str, float] = {"torch.bfloat16": 2.0**-7, "torch.float16": 2.0**-10, "float16": 2.0**-10}
    return max(1e-5, eps.get(str(getattr(value, "dtype", None)), 0.0) / 2)
