"""Blocks of a host array on their way to a CUDA device, one ahead of the computation.

A block goes in chunks. A thread copies a chunk into page-locked memory and hands it to the copy stream, so that this
copy, the bus and the computation run side by side: the block arrives as fast as the slowest of them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from ..._threads.limits import default_threads

__all__ = ["Slot", "Uploader", "pinned_slot"]

# Threads that copy rows into page-locked memory: one alone is slower than the bus.
COPY_THREADS = 8
# The bus is at its full rate from here on, and a chunk stays small beside the caches' size.
CHUNK_BYTES = 2**24


class Slot(NamedTuple):
    """Page-locked memory of a chunk, and the event behind the last copy between it and the device."""

    rows: np.ndarray[Any, Any]
    left: Any


def pinned_slot(xp: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Slot:
    """A slot for a chunk of this shape."""
    count = int(np.prod(shape))
    memory = xp.cuda.alloc_pinned_memory(max(count * dtype.itemsize, 1))
    return Slot(np.frombuffer(memory, dtype, count).reshape(shape), xp.cuda.Event(disable_timing=True))


class Uploader:
    """Two places for blocks on the device, filled in turn.

    Parameters
    ----------
    xp : module
        CuPy.
    active : callable
        Returns a context in which the device is the current one, for the copying threads.
    shape : (rows, d)
        Of the largest block.
    dtype : dtype
        Of all blocks.
    """

    def __init__(
        self, xp: Any, active: Callable[[], AbstractContextManager[Any]], shape: tuple[int, int], dtype: Any
    ) -> None:
        self._xp, self._active = xp, active
        rows, d = shape
        self._chunk = max(1, min(rows, CHUNK_BYTES // max(d * np.dtype(dtype).itemsize, 1)))
        threads = min(COPY_THREADS, default_threads())
        self._stream = xp.cuda.Stream(non_blocking=True)
        self._places = [xp.empty(shape, dtype) for _ in range(2)]
        self._arrived = [xp.cuda.Event(disable_timing=True) for _ in range(2)]
        self._used = [xp.cuda.Event(disable_timing=True) for _ in range(2)]
        for used in self._used:  # the memory pool may have given us what earlier kernels still read
            used.record(xp.cuda.get_current_stream())
        self._slots: SimpleQueue[Slot] = SimpleQueue()
        for _ in range(min(2 * threads, 2 * -(-rows // self._chunk))):
            self._slots.put(pinned_slot(xp, (self._chunk, d), np.dtype(dtype)))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mfakit-copy")
        self._sending: list[list[Future[None]]] = [[], []]
        self._turn = 0

    def start(self, block: np.ndarray[Any, Any]) -> int:
        """Begin copying a block, which must stay as it is until :meth:`get`; returns its ticket. At most two may be
        open.
        """
        turn, self._turn = self._turn, 1 - self._turn
        self._stream.wait_event(self._used[turn])  # the computation is done with what is there
        self._sending[turn] = [
            self._pool.submit(self._send, turn, block, first) for first in range(0, len(block), self._chunk)
        ]
        return turn

    def _send(self, turn: int, block: np.ndarray[Any, Any], first: int) -> None:
        part = block[first : first + self._chunk]
        slot = self._slots.get()
        try:
            with self._active():
                slot.left.synchronize()
                source = slot.rows[: len(part)]
                np.copyto(source, part)
                self._places[turn][first : first + len(part)].set(source, stream=self._stream)
                slot.left.record(self._stream)
        finally:
            self._slots.put(slot)

    def get(self, ticket: int, n: int) -> Any:
        """The block on the device, for the current stream; :meth:`done` gives its place back."""
        for sent in self._sending[ticket]:
            sent.result()
        self._arrived[ticket].record(self._stream)
        self._xp.cuda.get_current_stream().wait_event(self._arrived[ticket])
        return self._places[ticket][:n]

    def done(self, ticket: int) -> None:
        """What the current stream was given so far is the last to read this block."""
        self._used[ticket].record(self._xp.cuda.get_current_stream())

    def close(self) -> None:
        """Wait for copies under way."""
        self._pool.shutdown(cancel_futures=True)
        self._stream.synchronize()
