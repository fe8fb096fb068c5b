"""Where arrays live and who multiplies them: the CUDA device's part, CuPy and cuBLAS (:mod:`.host_arrays`: the host's).

Samples that are on the host are streamed: a block is copied into page-locked memory and from there to the device, on a
stream of its own, while the block before it is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .._lazy import lazy
from ._cuda.engine import engine
from .host_arrays import Host, Results
from .operands import Mixture

if TYPE_CHECKING:
    from .._arrays.options import Options
    from .._arrays.rows import RowBlocks
    from ..mixture.factors import Factors

_logger = logging.getLogger("mfakit")

__all__ = ["Cuda", "DeviceFactors", "current"]

# Share of the free memory that a block's buffers may take: the caller's own arrays grow, too.
MEMORY_SHARE = 0.4
# Tall enough for every product to run at its full rate; taller ones only wait longer for Ctrl-C.
MOST_ROWS = 2**20
# Of a block on its way to the device: page-locked memory takes long to get, and copies of this size run at full speed.
STREAM_BYTES = 2**28
# Of rows of matrices, in values: cuBLAS's fastest products, above all those in TF32, want 16 bytes.
ALIGNMENT = 4
# Of a result on the host from which on it comes beside the computation: page-locked memory takes long to get.
DOWNLOAD_BYTES = 2**25
# About half a second on the fastest device of today.
BLOCK_FLOPS = 20 * 10**12


class Cuda(Host):
    """CuPy arrays on one device."""

    is_device = True
    tile_bytes = panel_bytes = 2**30

    def __init__(self, device_engine: Any) -> None:
        self.engine = device_engine
        self.xp = device_engine.xp
        self.has_tf32: bool = device_engine.has_tf32
        self.name = f"cuda:{device_engine.device}"
        self.out_of_memory = device_engine.out_of_memory

    def asarray(self, array: Any) -> Any:
        """A host array's copy on the device; a device array is itself."""
        return self.engine.asarray(array) if isinstance(array, np.ndarray) else array

    def to_host(self, array: Any) -> Any:
        """A copy on the host; waits for the device."""
        return self.engine.to_host(array)

    def all_to_host(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        """Copies on the host, which arrive together."""
        found = self.to_host(self.xp.concatenate([array.reshape(-1).astype(np.float64) for array in arrays]))
        parts = np.split(found, np.cumsum([array.size for array in arrays])[:-1])
        return tuple(part.reshape(a.shape).astype(a.dtype, copy=False) for part, a in zip(parts, arrays, strict=True))

    def matmul(self, A: Any, B: Any, out: Any, *, tf32: bool = False) -> None:
        """out = A · B; float32 on tensor cores where `tf32`, and never otherwise."""
        self.engine.matmul(A, B, out, tf32)

    def factors(self, factors: Factors) -> DeviceFactors:
        """The factors on this device, copied once and kept with them."""
        kept: DeviceFactors = factors.kept(("device", self.name), lambda: DeviceFactors(factors, self))
        return kept

    def room_for(self, wanted: int) -> int:
        """At most a sixteenth of the free memory: panels are of two sides, and there twice while they are made."""
        return min(wanted, int(self.engine.free_bytes()) // 16)

    def side(self, factors: Factors) -> Any:
        """The factors on this device where they take at most a quarter of its free memory, else on the host."""
        return self.factors(factors) if 4 * factors.whitened.nbytes <= self.engine.free_bytes() else factors

    def plan_block(self, options: Options, X: RowBlocks, columns: int, itemsize: int, copies: int = 0) -> int:
        """Rows per block: what fits in a share of the free memory together with the caller's `copies` of the block in
        float64, at most MOST_ROWS; of host arrays, in page-locked buffers.
        """
        n, d = X.shape
        if options.block_rows is not None:
            return int(max(1, min(options.block_rows, n)))
        # X twice (the block computed and the one on its way), centred, the result; products, log-probabilities, marks.
        row_bytes = itemsize * (4 * d + columns) + 24 * columns + 8 * d * copies
        by_memory = int(MEMORY_SHARE * self.engine.free_bytes()) // max(row_bytes, 1)
        by_flops = BLOCK_FLOPS // max(2 * d * columns, 1)
        by_way = MOST_ROWS if X.device is not None else max(STREAM_BYTES // max(X.narrow.itemsize * d, 1), 64)
        return max(1, min(by_memory, max(by_flops, 1024), by_way, MOST_ROWS, n))

    def blocks(self, X: RowBlocks, start: int, rows: int, end: int | None = None) -> Iterator[tuple[int, Any]]:
        """Blocks of X on the device; those of a host array come one ahead, through page-locked memory, bytes and other
        narrow numbers as they are.
        """
        end = len(X) if end is None else end
        if X.device is not None or start >= end:
            yield from super().blocks(X, start, rows, end)
            return
        way = X.narrow
        uploader = self.engine.uploader((min(rows, end - start), X.shape[1]), way)
        try:
            ticket = uploader.start(X.block(start, min(start + rows, end), way))
            for first in range(start, end, rows):
                stop = min(first + rows, end)
                block = uploader.get(ticket, stop - first)
                following = uploader.start(X.block(stop, min(stop + rows, end), way)) if stop < end else None
                yield first, block if way == X.dtype else block.astype(X.dtype)
                uploader.done(ticket)
                ticket = following
        finally:
            uploader.close()

    def each_block(
        self, X: RowBlocks, rows: int, work: Callable[[Any, int], None], resize: Callable[[int], None],
        start: int = 0, end: int | None = None,
    ) -> None:  # fmt: skip
        """See Host.each_block. Results do not depend on the height of blocks."""
        end = len(X) if end is None else end
        while start < end:
            full = False
            try:
                for first, block in self.blocks(X, start, rows, end):
                    start = first
                    work(block, first)
                    start = first + len(block)
            except self.out_of_memory:
                block = None
                if rows == 1:
                    raise
                full = True
            if full:  # here, where the error and the arrays of its frames are gone
                rows = -(-rows // 2)
                _logger.warning("%s is out of memory: going on with blocks of %d rows", self.name, rows)
                resize(rows)
                self.release()

    @contextmanager
    def sums_into(self, totals: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        """Zeros on this device, like the device's arrays `totals`, and added to them at the end, when nothing needs
        memory any more; not after an error.
        """
        sums = tuple(self.xp.zeros(total.shape) for total in totals)
        yield sums
        for total, part in zip(totals, sums, strict=True):
            total += part

    def results(self, out: Any) -> Results:
        """Those of a large result on the host come in page-locked memory, while the next block is computed."""
        large = isinstance(out, np.ndarray) and out.nbytes >= DOWNLOAD_BYTES
        return _Downloads(self, out) if large else Results(self, out)

    def target(self, out: Any, part: slice) -> Any:
        """out[part] itself, or an array of its shape on the device for a result that is on the host."""
        place = out[part]
        return self.xp.empty(place.shape, place.dtype) if isinstance(out, np.ndarray) else place

    def store(self, out: Any, part: slice, target: Any) -> None:
        """To a result on the host by a copy that waits for the device."""
        if isinstance(out, np.ndarray):
            out[part] = self.to_host(target)

    def synchronize(self) -> None:
        """Wait for the current stream."""
        self.engine.synchronize()

    def release(self) -> None:
        """Give back what CuPy's pool keeps."""
        self.engine.release()

    def empty_result(self, shape: tuple[int, ...], dtype: Any, X: RowBlocks) -> Any:
        """On the device for samples that are there, else on the host."""
        if X.device is None:
            return np.empty(shape, dtype)
        with self.active():
            return self.xp.empty(shape, dtype)

    def active(self) -> AbstractContextManager[Any]:
        """Make this the current device."""
        context: AbstractContextManager[Any] = self.engine.active()
        return context


class _Downloads(Results):
    """Results on the host that arrive one block behind the computation."""

    arrays: Cuda
    _downloader: Any = None

    def target(self, part: slice) -> Any:
        """A place on the device; the first block is the tallest."""
        n = part.stop - part.start
        if self._downloader is None:
            self._downloader = self.arrays.engine.downloader((n, *self.out.shape[1:]), self.out.dtype)
        return self._downloader.place(n)

    def store(self, part: slice, target: Any) -> None:
        """Begin to bring them."""
        self._downloader.start(self.out[part])

    def __exit__(self, kind: object, *rest: object) -> None:
        """Wait until everything is in its place; after an error, for copies under way."""
        if self._downloader is None:
            return
        try:
            if kind is None:
                self._downloader.finish()
        finally:
            self._downloader.close()


class DeviceFactors:
    """:class:`~mfakit.mixture.factors.Factors` with its arrays on a device, each copied when it is first read.

    `made` has those that were made there, on the stream that alone reads them.
    """

    def __init__(self, host: Factors, arrays: Cuda, made: dict[Any, Any] | None = None) -> None:
        self.host, self._arrays, self._shared = host, arrays, made is None
        self._copies: dict[Any, Any] = {} if made is None else made

    def keep(self, key: Any, make: Any) -> Any:
        """What `make` returns, on the device; made at the first call with this key."""
        if key not in self._copies:
            copied = self._arrays.asarray(make())
            if self._shared:
                self._arrays.synchronize()  # other streams may be the next to read it
            self._copies[key] = copied
        return self._copies[key]

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_copies", ()):
            return self._copies[name]
        value = getattr(self.host, name)
        return self.keep(name, lambda: np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value

    @lazy
    def mixture(self) -> Mixture:
        """What the kernels read."""
        return Mixture.of(self)

    def panel(self, dtype: Any) -> Any:
        """P [d, k (l + 1)], see Factors.panel, and columns of zeros up to a multiple of ALIGNMENT."""

        def make() -> Any:
            (k, l, d), xp = self.shape, self._arrays.xp
            rows = xp.empty((k, l + 1, d), dtype)
            rows[:, :l], rows[:, l] = self.whitened, (self.means - self.center) / self.noise
            panel = xp.zeros((d, k * (l + 1) + -k * (l + 1) % ALIGNMENT), dtype)
            panel[:, : k * (l + 1)] = rows.reshape(-1, d).T
            return panel

        return self.keep(("panel", np.dtype(dtype)), make)

    def thin_panel(self, dtype: Any) -> Any:
        """D⁻¹ᵀ [d, k], see Factors.thin_panel."""
        xp = self._arrays.xp
        return self.keep(("thin", np.dtype(dtype)), lambda: xp.ascontiguousarray((1.0 / self.noise).T.astype(dtype)))


def current(device: str | None = None) -> Cuda:
    """The arrays of a device such as "cuda:0", None being CuPy's current one."""
    chosen = engine(None if device is None else int(device.partition(":")[2]))
    if not hasattr(chosen, "arrays"):
        chosen.arrays = Cuda(chosen)
    arrays: Cuda = chosen.arrays
    return arrays
