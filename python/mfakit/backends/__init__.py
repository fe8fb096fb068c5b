"""Backends: who runs the kernels of the operation table, which is what :mod:`~mfakit.backends.numpy_ops` has.

An operation is a matrix product by the array library and an epilogue by a backend. Each backend is a module with one
function per name in :func:`operations`, all with the signatures of the readable one.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Literal, get_args

from .._errors import BackendUnavailable
from .binding import operations
from .host_arrays import HOST, Host

__all__ = [
    "BACKENDS", "Backend", "available", "get_arrays", "get_backend", "is_compiled", "operations",
    "why_missing",
]  # fmt: skip

# Those of the host, the default first, and what a caller may ask for.
HostBackend = Literal["native", "numba", "numpy"]
Backend = Literal["auto", HostBackend, "cuda"]
BACKENDS: tuple[HostBackend, ...] = get_args(HostBackend)
_logger = logging.getLogger("mfakit")
_announced: set[str] = set()


def why_missing(name: str) -> str | None:
    """None if the backend can run here, else one sentence."""
    if name == "cuda":
        from ._cuda.engine import why_missing as why_no_cuda

        return why_no_cuda()
    if name not in BACKENDS:
        return f"there is no such backend; there are {', '.join((*BACKENDS, 'cuda'))}"
    try:
        _module(name)
    except ImportError as error:
        reason = "the compiled extension mfakit._native is not installed (no C++ compiler at installation?)"
        return f"{reason}: {error}" if name == "native" else f"{name} does not import: {error}"
    return None


@cache  # importing what is there already would take a quarter of a call for one sample
def _module(name: str) -> ModuleType:
    return import_module(f".{name}_ops", __name__)


def available() -> list[str]:
    """The backends that can run here, the default first."""
    return [name for name in (*BACKENDS, "cuda") if why_missing(name) is None]


def get_backend(name: str = "auto", device: str | None = None) -> ModuleType:
    """The module of a backend. `device` says where the arrays are that it will be given ("cuda:0"; None: the host).

    Raises
    ------
    BackendUnavailable
        When it cannot run here: what is missing, and what is available. A backend asked for is never swapped.
    ValueError
        For a backend of the host and arrays that are on a device.
    """
    if device is not None and name not in ("auto", "cuda"):
        raise ValueError(
            f"the array is on {device} and backend={name!r} computes on the host; copy it there (X.get(), X.cpu()) or "
            "leave the backend to be chosen"
        )
    if name == "auto":
        name = "cuda" if device is not None else "native" if why_missing("native") is None else "numba"
        if name not in _announced:
            _announced.add(name)
            _logger.info("backend auto: %s", name)
    reason = why_missing(name)
    if reason is not None:
        raise BackendUnavailable(f"{name}: {reason}; available: {', '.join(available())}")
    return _module(name)


def is_compiled(ops: ModuleType) -> bool:
    """Whether a backend is the compiled one, which has searches besides the table."""
    return ops.__name__.endswith(".native_ops")


def get_arrays(ops: ModuleType, device: str | None = None) -> Host:
    """Where a backend's arrays live, and who multiplies them: the host, or a device (None: CuPy's current one)."""
    if not ops.__name__.endswith(".cuda_ops"):
        return HOST
    from .cuda_arrays import current

    return current(device)
