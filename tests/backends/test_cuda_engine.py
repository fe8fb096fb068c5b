"""What the CUDA engine asks of CuPy and cuBLAS, against stand-ins that do as asked or fail as they do."""

from __future__ import annotations

import ctypes
import importlib.machinery
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emulator.fake_cupy import DeviceArray, FakeCupy
from support import close

import mfakit
from mfakit._arrays.rows import wrap_like
from mfakit.backends._cuda import engine as _cuda_engine
from mfakit.backends._cuda import runtime as _cuda_runtime
from mfakit.backends._cuda.engine import CupyEngine, OutOfDeviceMemory


def _matrix(pointer: int, rows: int, columns: int, leading: int, dtype: Any) -> Any:
    """A column-major matrix in memory."""
    kind = ctypes.c_double if dtype == np.float64 else ctypes.c_float
    flat = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(kind)), shape=(leading * columns,))
    return flat.reshape(columns, leading).T[:rows]


class _Cublas(ModuleType):
    """gemmEx as cuBLAS documents it, by columns; remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__("cublas")
        self.mode, self.pointers, self.calls = 3, 1, []  # as another library may have left them

    def getMathMode(self, handle: int) -> int:
        return self.mode

    def setMathMode(self, handle: int, mode: int) -> None:
        self.mode = mode

    def getPointerMode(self, handle: int) -> int:
        return self.pointers

    def setPointerMode(self, handle: int, mode: int) -> None:
        self.pointers = mode

    def gemmEx(self, handle, transa, transb, m, n, k, alpha, A, a_type, lda, B, b_type, ldb, beta, C, c_type, ldc, compute, algo):  # fmt: skip  # noqa: E501 (cuBLAS's own list)
        assert (self.mode, self.pointers) == (0, 0)
        assert a_type == b_type == c_type
        dtype = np.float64 if c_type == _cuda_engine.CUDA_R_64F else np.float32
        left = _matrix(A, k, m, lda, dtype).T if transa else _matrix(A, m, k, lda, dtype)
        right = _matrix(B, n, k, ldb, dtype).T if transb else _matrix(B, k, n, ldb, dtype)
        scale = _matrix(alpha, 1, 1, 1, dtype)[0, 0]
        assert _matrix(beta, 1, 1, 1, dtype)[0, 0] == 0
        _matrix(C, m, n, ldc, dtype)[:] = scale * (left @ right)
        self.calls.append(compute)


@pytest.fixture
def cublas(monkeypatch: pytest.MonkeyPatch) -> _Cublas:
    fake = _Cublas()
    names = ("cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.libs")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["cupy_backends.cuda.libs"].cublas = fake  # type: ignore[attr-defined]
    return fake


def _engine(**xp: Any) -> CupyEngine:
    engine = object.__new__(CupyEngine)
    engine.xp = SimpleNamespace(**xp)
    engine._modules, engine._functions, engine._shared_limits, engine._lock = {}, {}, {}, threading.Lock()
    return engine


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_products(cublas: _Cublas, dtype: str, transposed: tuple[bool, bool]) -> None:
    device = SimpleNamespace(get_cublas_handle=lambda: 1)
    engine = _engine(cuda=SimpleNamespace(device=device))
    rng = np.random.default_rng(0)
    for m, k, n in ((3, 5, 4), (1, 5, 4), (3, 1, 4), (3, 5, 1), (1, 1, 1)):
        A, B = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
        left = DeviceArray(np.ascontiguousarray(A.T).T if transposed[0] else A)
        right = DeviceArray(np.ascontiguousarray(B.T).T if transposed[1] else B)
        out = DeviceArray(np.full((m, n), np.nan, dtype))
        engine.matmul(left, right, out, False)
        close(out.get(), A @ B, dtype, rtol=1e-5)
    assert (cublas.mode, cublas.pointers) == (3, 1)  # as they were found


def test_only_fast_products_may_round_to_tf32(cublas: _Cublas) -> None:
    engine = _engine(cuda=SimpleNamespace(device=SimpleNamespace(get_cublas_handle=lambda: 1)))
    for dtype, fast in (("float32", False), ("float32", True), ("float64", True)):
        A, out = DeviceArray(np.ones((2, 2), dtype)), DeviceArray(np.empty((2, 2), dtype))
        engine.matmul(A, A, out, fast)
    assert cublas.calls == [_cuda_engine.COMPUTE_32F, _cuda_engine.COMPUTE_32F_FAST_TF32, _cuda_engine.COMPUTE_64F]


def test_whatever_finds_no_memory_is_out_of_memory(cublas: _Cublas) -> None:
    """The driver's, the runtime's and cuBLAS's errors, which blocks of half the height may mend; no other error is."""

    def raises(message: str) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            raise RuntimeError(message)

        return call

    A = DeviceArray(np.ones((2, 2)))
    for message in (
        "CUBLAS_STATUS_ALLOC_FAILED", "cudaErrorMemoryAllocation: out of memory",
        "CUDA_ERROR_OUT_OF_MEMORY: out of memory", "CUBLAS_STATUS_NOT_SUPPORTED",
    ):  # fmt: skip
        engine = _engine(cuda=SimpleNamespace(device=SimpleNamespace(get_cublas_handle=raises(message))))
        engine._function = raises(message)  # type: ignore[method-assign]
        expected = RuntimeError if "SUPPORTED" in message else OutOfDeviceMemory
        with pytest.raises(expected, match=message):
            engine.matmul(A, A, A, False)
        with pytest.raises(expected, match=message):
            engine.launch("density", "center_rows", (1,), 32, ())


def test_an_empty_product_is_zero(cublas: _Cublas) -> None:
    out = DeviceArray(np.full((2, 3), np.nan))
    _engine().matmul(DeviceArray(np.empty((2, 0))), DeviceArray(np.empty((0, 3))), out, False)
    assert not out.get().any()
    strided = DeviceArray(np.empty((4, 4))[::2, ::2])
    with pytest.raises(ValueError, match="contiguous by rows or by columns"):
        _cuda_engine._layout(strided)


@pytest.fixture
def no_cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No CuPy is loaded, and none that the test loads stays; `monkeypatch.delitem` forgets what was not there."""
    monkeypatch.setattr(_cuda_runtime, "_found", False)
    names = [name for name in sys.modules if name.partition(".")[0] == "cupy"]
    loaded = {name: sys.modules.pop(name) for name in names}
    yield
    sys.modules.pop("cupy", None)
    sys.modules.update(loaded)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for kernels that cannot be made: its parent is a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "0")  # so that it is put back
    monkeypatch.setattr(_cuda_runtime, "_cache_checked", False)
    return tmp_path


def test_an_unwritable_kernel_cache_still_works(
    cache: Path, no_cupy: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CuPy makes the folder while it is imported, and would fail there."""
    (cache / "cupy.py").write_text("import os\nos.makedirs(os.environ['CUPY_CACHE_DIR'], exist_ok=True)\n")
    monkeypatch.syspath_prepend(cache)
    with caplog.at_level(logging.INFO, "mfakit"):
        assert _cuda_runtime.import_cupy().__name__ == "cupy"
    own = Path(os.environ["CUPY_CACHE_DIR"])
    assert own.is_dir()
    assert "compiled for this process only" in caplog.text
    assert os.environ["CUPY_CACHE_IN_MEMORY"] == "0"
    own.rmdir()


def test_an_unwritable_kernel_cache_of_a_cupy_that_is_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("cupy")
    fake.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    assert _cuda_runtime.import_cupy() is fake
    assert os.environ["CUPY_CACHE_IN_MEMORY"] == "1"


def test_kernel_arguments_are_64_bits() -> None:
    assert _cuda_engine._argument(True) == np.int64(1)
    for value, kind in ((3, np.int64), (np.int32(3), np.int64), (0.5, np.float64), (None, np.uintp)):
        assert type(_cuda_engine._argument(value)) is kind
    array = FakeCupy().asarray(np.ones(2))
    assert _cuda_engine._argument(array) is array


class _RuntimeError(Exception):
    pass


def _device(major: int, minor: int) -> dict[str, Any]:
    return {
        "name": b"GeForce", "major": major, "minor": minor, "multiProcessorCount": 20, "sharedMemPerBlockOptin": 49152,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (_RuntimeError("cudaErrorInsufficientDriver: CUDA driver version"), "no NVIDIA driver, or one too old"),
        (_RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected"), "no CUDA device"),
        (_RuntimeError("cudaErrorInitializationError: initialization error"), "CUDA does not start.*'spawn'"),
        (_RuntimeError("cudaErrorUnknown: unknown error"), "CUDA does not start: cudaErrorUnknown"),
        ([], "no CUDA device"),
        ([(6, 1)], "GeForce has compute capability 6.1, and the kernels need 7.5 or newer"),
        ([(6, 1), (9, 0)], "CuPy does not find cuBLAS: import of cupy_backends.cuda.libs halted"),
    ],
)  # fmt: skip
def test_what_is_missing(failure: Any, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> int:
        if isinstance(failure, Exception):
            raise failure
        return len(failure)

    runtime = SimpleNamespace(
        getDeviceCount=count, getDeviceProperties=lambda device: _device(*failure[device]),
        CUDARuntimeError=_RuntimeError,
    )  # fmt: skip
    fake = ModuleType("cupy")
    fake.cuda = SimpleNamespace(runtime=runtime)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", None)  # its import fails, whatever is installed
    monkeypatch.setattr(_cuda_runtime, "_cache_checked", True)
    monkeypatch.setattr(_cuda_runtime, "_found", False)
    with pytest.raises(mfakit.BackendUnavailable, match=f"cuda: {sentence}"):
        mfakit.MFA([1.0], np.zeros((1, 2)), np.zeros((1, 2, 0)), 1.0).log_prob(np.zeros((1, 2)), backend="cuda")


def test_a_cupy_that_does_not_load_is_said_in_one_line(
    no_cupy: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('\\n=====\\nlibnvrtc.so.13: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_cuda_runtime, "_cache_checked", True)
    assert _cuda_runtime.why_not() == "CuPy does not load: libnvrtc.so.13: cannot open"


def test_a_folder_named_cupy_is_not_cupy(no_cupy: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_cuda_runtime, "_cache_checked", True)
    assert str(_cuda_runtime.why_not()).startswith("CuPy does not load: <module 'cupy'")


def test_an_old_device_beside_another_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("cupy")
    fake.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        runtime=SimpleNamespace(getDeviceProperties=lambda device: _device(6, 1)),
        memory=SimpleNamespace(OutOfMemoryError=MemoryError),
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(_cuda_runtime, "_cache_checked", True)
    with pytest.raises(mfakit.BackendUnavailable, match=r"GeForce has compute capability 6.1, .* 7.5 or newer"):
        CupyEngine(0)


def test_missing_headers_are_said_in_one_sentence() -> None:
    class RawModule:
        def __init__(self, **_: Any) -> None:
            pass

        def compile(self) -> None:
            raise RuntimeError("Failed to find CUDA headers")

    with pytest.raises(mfakit.BackendUnavailable, match="CuPy finds no CUDA headers to compile with; pip install"):
        _engine(RawModule=RawModule)._compile("pairs", ())


def test_what_is_compiled_is_said_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    class RawModule:
        def __init__(self, **_: Any) -> None:
            pass

        def compile(self) -> None:
            pass

    with caplog.at_level(logging.INFO, "mfakit"):
        _engine(RawModule=RawModule)._compile("pairs", ())
    assert "cuda: kernels of pairs compiled, or found in CuPy's cache, in 0.0 s" in caplog.text


def test_the_limit_of_shared_memory_only_rises() -> None:
    """It belongs to the kernel, not to the launch: lowered, it would fail a launch that another thread has prepared."""
    launched: list[tuple[int, int]] = []

    class Function:
        max_dynamic_shared_size_bytes = 48 * 1024

        def __call__(self, grid: Any, block: Any, args: Any, shared_mem: int) -> None:
            launched.append((shared_mem, self.max_dynamic_shared_size_bytes))

    function = Function()
    engine = _engine()
    engine._compile = lambda *_: SimpleNamespace(get_function=lambda name: function)  # type: ignore[method-assign]
    for shared in (100_000, 60_000, 0, 90_000, 120_000):
        engine.launch("attack", "factor_walk", (1,), 32, (), shared=shared)
    assert launched == [(100_000, 100_000), (60_000, 100_000), (0, 100_000), (90_000, 100_000), (120_000, 120_000)]


def test_results_go_to_torch_on_their_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch makes its stream wait for the current stream of the current device, which must be the result's."""
    torch = pytest.importorskip("torch")
    current: list[int] = [0]

    @contextmanager
    def active() -> Iterator[None]:
        current.append(1)
        yield
        current.pop()

    seen: list[int] = []
    fake = SimpleNamespace(active=active, asarray=lambda array: seen.append(current[-1]))
    monkeypatch.setattr(_cuda_engine, "_installed", fake)
    monkeypatch.setattr(torch.utils.dlpack, "from_dlpack", lambda array: seen.append(current[-1]))
    result = DeviceArray(np.ones(2))
    wrap_like(result, torch.ones(2))
    wrap_like(np.ones(2), result)
    assert seen == [1, 1]
