"""The real ``.cu`` files on the CPU, in the place of the CUDA device (mfakit.backends._cuda.engine.install)."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from mfakit.backends._cuda import source as _cuda_source

from .fake_cupy import DeviceArray, FakeCupy, Waits, unwrap

HERE = Path(__file__).parent
ORDERS = {"forward": 0, "reverse": 1, "permuted": 2}
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")  # lines for reports, no variables


class OutOfMemoryError(Exception):
    """What CuPy raises."""


class EmulatorError(Exception):
    """What a device would leave undefined."""


def build(family: str, options: tuple[str, ...], folder: Path, sanitize: bool = False) -> Path:
    """Compile a family for the emulator; returns the shared library, made once per content."""
    source = _cuda_source.flatten(family)
    lines = [
        f'{{"{name}", &emu::Caller<decltype({name})>::body<{name}>}},' for name in _cuda_source.kernel_names(family)
    ]
    text = (
        '#include "emulator.hpp"\n' + source + "\nstruct Entry { const char* name; void (*body)(void**); };\n"
        "static const Entry entries[] = {\n" + "\n".join(lines) + "\n};\n"
        'extern "C" int emu_launch(int kernel, const unsigned* grid, unsigned threads, const uint64_t* part, size_t '
        "shared, void** args, int order, uint64_t seed) {\n"
        "  return emu::launch(entries[kernel].body, grid, threads, part, shared, args, order, seed);\n}\n"
    )
    flags = ["-O1", "-fPIC", "-shared", "-fno-strict-aliasing", "-w", *(SANITIZE if sanitize else ()), *options]
    header = (HERE / "emulator.hpp").read_text()
    digest = hashlib.sha256("\0".join([text, header, *flags]).encode()).hexdigest()[:16]
    library = folder / f"{family}-{digest}.so"
    if not library.exists():
        unit = folder / f"{family}-{digest}-{os.getpid()}.cpp"
        unit.write_text(text)
        partial = library.with_suffix(f".{os.getpid()}")
        command = [os.environ.get("CXX", "c++"), *flags, f"-I{HERE}", str(unit), "-o", str(partial)]
        plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        subprocess.run(command, check=True, capture_output=True, text=True, env=plain)  # no sanitizer in the compiler
        partial.replace(library)
    return library


class _Uploader:
    def __init__(self, dtype: Any, log: list[str], sent: list[int]) -> None:
        self._blocks: dict[int, DeviceArray] = {}
        self._turn, self._dtype, self.log, self._sent = 0, dtype, log, sent

    def start(self, block: np.ndarray[Any, Any]) -> int:
        turn, self._turn = self._turn, 1 - self._turn
        assert block.dtype == self._dtype
        self._sent.append(block.nbytes)
        self._blocks[turn] = DeviceArray(np.array(block, order="C"))
        self.log.append(f"start {turn}")
        return turn

    def get(self, ticket: int, n: int) -> DeviceArray:
        assert len(self._blocks[ticket]) == n
        return self._blocks[ticket]

    def done(self, ticket: int) -> None:
        self.log.append(f"done {ticket}")
        self._blocks[ticket]._array.view(np.uint8)[...] = 0xFF  # its place is used again

    def close(self) -> None:
        self.log.append("close")


class _Downloader:
    """Results that arrive as late as they may: when their place is asked for again, or at the end."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, log: list[str]) -> None:
        self._places = [DeviceArray(np.full(shape, np.nan, dtype)) for _ in range(2)]
        self._due: list[Any] = [None, None]
        self._turn, self.log = 0, log

    def _bring(self, turn: int) -> None:
        if self._due[turn] is not None:
            target = self._due[turn]
            target[...] = self._places[turn]._array[: len(target)]
            self._places[turn]._array[...] = np.nan
            self._due[turn] = None

    def place(self, n: int) -> DeviceArray:
        self._bring(self._turn)
        return self._places[self._turn][:n]

    def start(self, target: np.ndarray[Any, Any]) -> None:
        self.log.append(f"bring {len(target)}")
        self._due[self._turn], self._turn = target, 1 - self._turn

    def finish(self) -> None:
        self._bring(self._turn)
        self._bring(1 - self._turn)

    def close(self) -> None:
        self.log.append("closed")


class EmulatedEngine:
    """The interface of mfakit.backends._cuda.engine.CupyEngine."""

    def __init__(
        self, folder: Path | None = None, order: str = "forward", sanitize: bool = False, threads: int = 64
    ) -> None:
        self.xp: Any = FakeCupy()
        self.device = 0
        self.name = "emulator"
        self.multiprocessors = 2
        self.shared_bytes = 96 * 1024
        self.most_threads = threads
        self.has_tf32 = True
        self.out_of_memory = (OutOfMemoryError,)
        self.order, self.sanitize = ORDERS[order], sanitize
        self.folder = folder or Path(tempfile.mkdtemp(prefix="mfakit-emulator-"))
        self.launches: list[tuple[str, tuple[int, ...], int, int]] = []
        self.uploads: list[str] = []
        self.sent: list[int] = []  # bytes of the blocks that were uploaded
        self.block_part: tuple[int, int] | None = None  # run only these blocks of a grid
        self.fail_above_rows: int | None = None  # an allocation of more rows of X is out of memory
        self.fail_at_launch: int | None = None  # the launch of this number finds no memory, once
        self._libraries: dict[Any, ctypes.CDLL] = {}
        self._lock = threading.Lock()
        self._seed = 1

    def active(self) -> Any:
        return nullcontext()

    def asarray(self, array: Any) -> DeviceArray:
        return self.xp.asarray(array)

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        return self.xp.asnumpy(array)

    def free_bytes(self) -> int:
        return 2**28

    def release(self) -> None:
        self.uploads.append("release")

    def synchronize(self) -> None:
        Waits.add()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        self.uploads.append("record")
        yield
        self.uploads.append("recorded")

    def used_bytes(self) -> int:
        return 0

    def upload_seconds(self, n_bytes: int, rounds: int) -> list[float]:
        return [1e-3] * rounds

    def uploader(self, shape: tuple[int, int], dtype: Any) -> _Uploader:
        if self.fail_above_rows is not None and shape[0] > self.fail_above_rows:
            raise OutOfMemoryError(f"{shape} is too large")
        return _Uploader(dtype, self.uploads, self.sent)

    def downloader(self, shape: tuple[int, ...], dtype: Any) -> _Downloader:
        return _Downloader(shape, dtype, self.uploads)

    def matmul(self, A: Any, B: Any, out: Any, fast: bool) -> None:
        A, B, out = unwrap(A), unwrap(B), unwrap(out)
        if fast:  # the eleven significant bits of TF32
            A, B = _round_to_tf32(A), _round_to_tf32(B)
        np.matmul(A, B, out=out)

    def launch(
        self, family: str, kernel: str, grid: tuple[int, ...], threads: int, args: tuple[Any, ...], *,
        real: str = "double", shared: int = 0, **values: int,
    ) -> None:  # fmt: skip
        assert threads % 32 == 0
        if self.fail_at_launch == len(self.launches):
            self.fail_at_launch = None
            raise OutOfMemoryError(f"no memory for {kernel}")
        assert min(grid) >= 0
        assert grid[0] < 2**31
        assert max(grid[1:], default=0) < 2**16
        if min(grid) == 0:
            return
        assert shared <= self.shared_bytes
        self.launches.append((kernel, grid, threads, shared))
        library = self._library(family, real, values)
        number = _cuda_source.kernel_names(family).index(kernel)
        holders = [_holder(value) for value in args]
        pointers = (ctypes.c_void_p * len(holders))(*(ctypes.addressof(holder) for holder in holders))
        part = (ctypes.c_uint64 * 2)(*(self.block_part or (0, 2**63)))
        dims = (ctypes.c_uint * 3)(*grid, *(1,) * (3 - len(grid)))
        with self._lock:
            self._seed += 1
            status = library.emu_launch(
                number, dims, ctypes.c_uint(threads), part, ctypes.c_size_t(shared), pointers, self.order,
                ctypes.c_uint64(self._seed),
            )  # fmt: skip
            if status:
                raise EmulatorError(f"{kernel}: {library.emu_error().decode()}")

    def _library(self, family: str, real: str, values: dict[str, int]) -> ctypes.CDLL:
        key = (family, real, tuple(sorted(values.items())))
        with self._lock:
            if key not in self._libraries:
                path = build(family, _cuda_source.definitions(real, **values), self.folder, self.sanitize)
                library = ctypes.CDLL(str(path))
                library.emu_error.restype = ctypes.c_char_p
                self._libraries[key] = library
        return self._libraries[key]


def _holder(value: Any) -> Any:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, DeviceArray):
        assert value.flags.c_contiguous
        assert value.flags.aligned
        return ctypes.c_void_p(value.data.ptr)
    if isinstance(value, np.ndarray):  # a struct, as mfakit.backends._cuda.packing makes it
        assert value.shape == (1,)
        assert value.dtype.kind == "V"
        return (ctypes.c_uint64 * (value.nbytes // 8)).from_buffer_copy(value)
    if isinstance(value, bool | int | np.integer):
        return ctypes.c_longlong(int(value))
    if isinstance(value, float | np.floating):
        return ctypes.c_double(float(value))
    raise TypeError(f"a kernel cannot take a {type(value).__name__}")


def _round_to_tf32(A: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    bits = np.ascontiguousarray(A, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
