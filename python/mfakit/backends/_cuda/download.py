"""Results of blocks on their way from a CUDA device to a host array, while the next block is computed.

A block's result goes in chunks. The copy stream brings a chunk into page-locked memory as soon as it is computed, and a
thread copies it from there to its place, so that computation, bus and this copy run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any

import numpy as np

from ..._threads.limits import default_threads
from .upload import CHUNK_BYTES, COPY_THREADS, Slot, pinned_slot

__all__ = ["Downloader"]


class Downloader:
    """Two places for a block's result on the device, which are emptied into host arrays in turn.

    Parameters
    ----------
    xp : module
        CuPy.
    active : callable
        Returns a context in which the device is the current one, for the copying threads.
    shape : (rows, ...)
        Of the largest result.
    dtype : dtype
        Of all results.
    """

    def __init__(
        self, xp: Any, active: Callable[[], AbstractContextManager[Any]], shape: tuple[int, ...], dtype: Any
    ) -> None:
        self._xp, self._active = xp, active
        rows, width, dtype = shape[0], int(np.prod(shape[1:])), np.dtype(dtype)
        self._chunk = max(1, min(rows, CHUNK_BYTES // max(width * dtype.itemsize, 1)))
        threads = min(COPY_THREADS, default_threads())
        self._stream = xp.cuda.Stream(non_blocking=True)
        self._places = [xp.empty(shape, dtype) for _ in range(2)]
        self._computed = [xp.cuda.Event(disable_timing=True) for _ in range(2)]
        self._slots: SimpleQueue[Slot] = SimpleQueue()
        for _ in range(min(2 * threads, 2 * -(-rows // self._chunk))):
            self._slots.put(pinned_slot(xp, (self._chunk, *shape[1:]), dtype))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mfakit-copy")
        self._bringing: list[list[Future[None]]] = [[], []]
        self._turn = 0

    def place(self, n: int) -> Any:
        """Where the next result, of n rows, is to be computed on the device, when the last one there is gone."""
        self._finish(self._turn)
        return self._places[self._turn][:n]

    def start(self, target: np.ndarray[Any, Any]) -> None:
        """Begin bringing what the current stream was given to compute in the last :meth:`place` to `target`
        [n, ...].
        """
        turn, self._turn = self._turn, 1 - self._turn
        self._computed[turn].record(self._xp.cuda.get_current_stream())
        self._stream.wait_event(self._computed[turn])
        self._bringing[turn] = [
            self._pool.submit(self._bring, turn, target, first) for first in range(0, len(target), self._chunk)
        ]

    def _bring(self, turn: int, target: np.ndarray[Any, Any], first: int) -> None:
        part = target[first : first + self._chunk]
        slot = self._slots.get()
        try:
            with self._active():
                there = slot.rows[: len(part)]
                self._places[turn][first : first + len(part)].get(stream=self._stream, out=there, blocking=False)
                slot.left.record(self._stream)
                slot.left.synchronize()
            np.copyto(part, there)
        finally:
            self._slots.put(slot)

    def _finish(self, turn: int) -> None:
        for brought in self._bringing[turn]:
            brought.result()
        self._bringing[turn] = []

    def finish(self) -> None:
        """Wait until everything is in its place."""
        self._finish(self._turn)
        self._finish(1 - self._turn)

    def close(self) -> None:
        """Give up what has not begun, and wait for copies under way."""
        self._pool.shutdown(cancel_futures=True)
        self._stream.synchronize()
