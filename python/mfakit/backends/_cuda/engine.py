"""The CUDA device as the kernels need it: compile, launch, multiply, copy. CuPy does each of these.

The tests put an emulator in its place (`install`); nothing above this file knows the difference.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from ..._errors import BackendUnavailable
from . import runtime as _cuda_runtime
from . import source as _cuda_source
from .download import Downloader
from .upload import Uploader

__all__ = ["CupyEngine", "devices", "engine", "install", "why_missing"]

_logger = logging.getLogger("mfakit")

# cublasComputeType_t. Named in full at every call, so that no global switch (CUPY_TF32, a math mode that another
# library left on the handle) turns a float32 product into a TF32 one.
COMPUTE_32F, COMPUTE_32F_FAST_TF32, COMPUTE_64F = 68, 77, 70
CUDA_R_32F, CUDA_R_64F = 0, 1
# A kernel that needs more shared memory than 48 KiB must ask for it; what it declares itself counts as well.
UNASKED_SHARED_BYTES = 47 * 1024


# What CUDA's libraries say where they find no memory, in errors that have no class of their own: the driver at a launch
# or when it loads a module, the runtime, and cuBLAS, which takes memory with its handle.
NO_MEMORY = ("CUDA_ERROR_OUT_OF_MEMORY", "cudaErrorMemoryAllocation", "CUBLAS_STATUS_ALLOC_FAILED")


class OutOfDeviceMemory(MemoryError):
    """What a library of CUDA says where it finds no memory, as an error that blocks of half the height may mend."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise OutOfDeviceMemory for whatever says that the device has no memory."""
    try:
        yield
    except Exception as error:
        if not str(error).startswith(NO_MEMORY):
            raise
        raise OutOfDeviceMemory(str(error)) from error


class CupyEngine:
    """One CUDA device through CuPy. Kernels are compiled at first use and kept by CuPy's cache on disk."""

    def __init__(self, device: int) -> None:
        self.xp = cupy = _cuda_runtime.import_cupy()
        self.device = device
        self._modules: dict[Any, Any] = {}
        self._functions: dict[Any, Any] = {}
        self._shared_limits: dict[Any, int] = {}
        self._lock = threading.Lock()
        self.out_of_memory: tuple[type[Exception], ...] = (cupy.cuda.memory.OutOfMemoryError, OutOfDeviceMemory)
        properties = cupy.cuda.runtime.getDeviceProperties(device)
        self.name = properties["name"].decode()
        self.multiprocessors = int(properties["multiProcessorCount"])
        self.shared_bytes = int(properties["sharedMemPerBlockOptin"])
        self.most_threads = 1024
        self.has_tf32 = int(properties["major"]) >= 8
        reason = _cuda_runtime.too_old(properties)
        if reason is not None:
            raise BackendUnavailable(f"cuda: {reason}")

    def active(self) -> AbstractContextManager[Any]:
        """Make this device the current one."""
        context: AbstractContextManager[Any] = self.xp.cuda.Device(self.device)
        return context

    def asarray(self, array: Any) -> Any:
        """A copy of a host array on the device."""
        return self.xp.asarray(array)

    def to_host(self, array: Any) -> Any:
        """A copy on the host."""
        return self.xp.asnumpy(array)

    def free_bytes(self) -> int:
        """Memory that a block may count on: what the driver has free and what CuPy's pool holds unused."""
        free, _ = self.xp.cuda.runtime.memGetInfo()
        return int(free + self.xp.get_default_memory_pool().free_bytes())

    def release(self) -> None:
        """Give unused memory of CuPy's pools back to the device and the host."""
        self.xp.get_default_memory_pool().free_all_blocks()
        self.xp.get_default_pinned_memory_pool().free_all_blocks()

    def launch(
        self, family: str, kernel: str, grid: tuple[int, ...], threads: int, args: tuple[Any, ...], *,
        real: str = "double", shared: int = 0, **values: int,
    ) -> None:  # fmt: skip
        """Start a kernel on the current stream. Integers go as 64 bits and floats as double; None is a null pointer."""
        if min(grid) == 0:
            return
        with memory_errors():
            function = self._function(family, kernel, real, tuple(sorted(values.items())), shared)
            function((*grid, *(1,) * (3 - len(grid))), (threads, 1, 1), tuple(map(_argument, args)), shared_mem=shared)

    def _function(
        self, family: str, kernel: str, real: str, values: tuple[tuple[str, int], ...], shared: int
    ) -> Any:  # fmt: skip
        """The kernel, allowed at least `shared` bytes of shared memory. Its limit is one for all threads, so it only
        ever rises: another thread may be about to launch with more than this one needs.
        """
        key = (family, real, values)
        with self._lock:
            if key not in self._modules:
                self._modules[key] = self._compile(family, _cuda_source.definitions(real, **dict(values)))
            if (key, kernel) not in self._functions:
                self._functions[key, kernel] = self._modules[key].get_function(kernel)
            function = self._functions[key, kernel]
            if shared > max(UNASKED_SHARED_BYTES, self._shared_limits.get((key, kernel), 0)):
                function.max_dynamic_shared_size_bytes = shared
                self._shared_limits[key, kernel] = shared
        return function

    def _compile(self, family: str, options: tuple[str, ...]) -> Any:
        module = self.xp.RawModule(code=_cuda_source.flatten(family), options=options, backend="nvrtc")
        start = time.perf_counter()
        try:
            module.compile()
        except RuntimeError as error:  # CuPy's own, whose wheels leave the toolkit's headers to another package
            if "CUDA headers" not in str(error):
                raise
            raise BackendUnavailable(
                "cuda: CuPy finds no CUDA headers to compile with; pip install 'cupy-cuda13x[ctk]', or 12x as installed"
            ) from error
        seconds = time.perf_counter() - start
        _logger.info("cuda: kernels of %s compiled, or found in CuPy's cache, in %.1f s", family, seconds)
        return module

    @memory_errors()
    def matmul(self, A: Any, B: Any, out: Any, fast: bool) -> None:
        """out [m, n] = A [m, k] · B [k, n] by cuBLAS; each operand C-contiguous or the transpose of such an array."""
        from cupy_backends.cuda.libs import cublas

        (m, k), n = A.shape, B.shape[1]
        if 0 in (m, n, k):
            out.fill(0)
            return
        double = out.dtype == np.float64
        kind = CUDA_R_64F if double else CUDA_R_32F
        compute = COMPUTE_64F if double else COMPUTE_32F_FAST_TF32 if fast else COMPUTE_32F
        one, zero = np.ones(1, out.dtype), np.zeros(1, out.dtype)
        # cuBLAS counts by columns: what it sees is outᵀ = Bᵀ Aᵀ.
        (transposed_b, ldb), (transposed_a, lda) = _layout(B), _layout(A)
        handle = self.xp.cuda.device.get_cublas_handle()
        mode, pointers = cublas.getMathMode(handle), cublas.getPointerMode(handle)
        cublas.setMathMode(handle, 0)  # CUBLAS_DEFAULT_MATH: float32 stays float32
        cublas.setPointerMode(handle, 0)  # the host's
        try:
            cublas.gemmEx(
                handle, transposed_b, transposed_a, n, m, k, one.ctypes.data, B.data.ptr, kind, ldb, A.data.ptr, kind,
                lda, zero.ctypes.data, out.data.ptr, kind, n, compute, -1,
            )  # fmt: skip
        finally:
            cublas.setMathMode(handle, mode)
            cublas.setPointerMode(handle, pointers)

    def uploader(self, shape: tuple[int, int], dtype: Any) -> Uploader:
        """Copies of blocks of at most this shape, one ahead of the computation."""
        return Uploader(self.xp, self.active, shape, dtype)

    def downloader(self, shape: tuple[int, ...], dtype: Any) -> Downloader:
        """Copies of results of at most this shape to the host, beside the computation of the next one."""
        return Downloader(self.xp, self.active, shape, dtype)

    def synchronize(self) -> None:
        """Wait for the current stream."""
        self.xp.cuda.get_current_stream().synchronize()

    def used_bytes(self) -> int:
        """Device memory that CuPy holds, used or kept for later: since :meth:`release`, the most that was needed."""
        return int(self.xp.get_default_memory_pool().total_bytes())

    def event_seconds(self, action: Any) -> float:
        """Time of an action on the current stream, by CUDA events."""
        first, last = self.xp.cuda.Event(), self.xp.cuda.Event()
        first.record()
        action()
        last.record()
        last.synchronize()
        return float(self.xp.cuda.get_elapsed_time(first, last)) / 1e3

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """What a profiler records that was told to begin at the program's mark."""
        self.synchronize()
        self.xp.cuda.runtime.profilerStart()
        try:
            yield
            self.synchronize()
        finally:
            self.xp.cuda.runtime.profilerStop()

    def upload_seconds(self, n_bytes: int, rounds: int) -> list[float]:
        """Times of copying page-locked memory to the device."""
        pinned = np.frombuffer(self.xp.cuda.alloc_pinned_memory(n_bytes), np.uint8, n_bytes)
        target = self.xp.empty(n_bytes, np.uint8)
        target.set(pinned)
        return [self.event_seconds(lambda: target.set(pinned)) for _ in range(rounds)]


def _argument(value: Any) -> Any:
    if value is None:
        return np.uintp(0)
    if isinstance(value, bool | int | np.integer):
        return np.int64(value)
    return np.float64(value) if isinstance(value, float | np.floating) else value


def _layout(M: Any) -> tuple[int, int]:
    """(0 if rows are contiguous, 1 if columns are; leading dimension) of an operand."""
    if M.flags.c_contiguous:
        return 0, M.shape[1]
    if not M.flags.f_contiguous:
        raise ValueError("an operand of a device product must be contiguous by rows or by columns")
    return 1, M.shape[0]


_engines: dict[int, Any] = {}
_installed: Any = None


def install(replacement: Any) -> None:
    """Put another engine in the device's place, or None to take it away again; for tests."""
    global _installed
    _installed = replacement


def why_missing() -> str | None:
    """None if there is a CUDA device that can be used, else one sentence."""
    return None if _installed is not None else _cuda_runtime.why_not()


def devices() -> list[str]:
    """A line for each CUDA device, and one for driver and runtime."""
    return [_installed.name] if _installed is not None else _cuda_runtime.devices()


def engine(device: int | None = None) -> Any:
    """The engine of a device, None being CuPy's current one.

    Raises
    ------
    RuntimeError
        In a process forked after CUDA was used, where it cannot work.
    """
    if _installed is not None:
        return _installed
    _cuda_runtime.note_use()
    if device is None:
        device = int(_cuda_runtime.import_cupy().cuda.runtime.getDevice())
    if device not in _engines:
        _engines[device] = CupyEngine(device)
    return _engines[device]
