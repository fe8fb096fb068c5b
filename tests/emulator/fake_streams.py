"""Streams and events that run late: what is put into a stream happens in a thread of its own, some time after the call.

Enough of CuPy for what copies beside the computation. Device arrays remember nothing but their memory, and every access
goes through a stream, so that work in a wrong order reads or overwrites the wrong values.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np


class LateStream:
    """Runs what it is given in order, each after a short random delay."""

    def __init__(self, seed: int = 0, delay: float = 0.0) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._random, self._delay = random.Random(seed), delay
        self._lock = threading.Lock()
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (action := self._work.get()) is not None:
            time.sleep(self._random.random() * self._delay)
            try:
                action()
            except BaseException as error:
                self.errors.append(error)

    def put(self, action: Callable[[], None]) -> None:
        self._work.put(action)

    def wait_event(self, event: LateEvent) -> None:
        marker = event.marker  # what was recorded when this was called
        if marker is not None:
            self.put(lambda: _wait(marker))

    def synchronize(self) -> None:
        done = threading.Event()
        self.put(done.set)
        _wait(done)

    def close(self) -> None:
        self._work.put(None)
        self._thread.join()
        assert not self.errors


def _wait(marker: threading.Event) -> None:
    if not marker.wait(20):
        raise TimeoutError("a stream waits for an event that never comes")


class LateEvent:
    def __init__(self, disable_timing: bool = False) -> None:
        assert disable_timing
        self.marker: threading.Event | None = None

    def record(self, stream: LateStream) -> None:
        marker = threading.Event()
        stream.put(marker.set)
        self.marker = marker

    def synchronize(self) -> None:
        if self.marker is not None:
            _wait(self.marker)


class LateArray:
    """Device memory: only streams read and write it."""

    def __init__(self, memory: np.ndarray[Any, Any]) -> None:
        self.memory = memory

    def __getitem__(self, part: slice) -> LateArray:
        return LateArray(self.memory[part])

    def set(self, source: np.ndarray[Any, Any], stream: LateStream) -> None:
        assert source.dtype == self.memory.dtype
        assert source.shape == self.memory.shape

        def copy() -> None:  # reads the host's memory when it runs, as a device does
            half = len(source) // 2
            self.memory[:half] = source[:half]
            time.sleep(0)
            self.memory[half:] = source[half:]

        stream.put(copy)

    def get(self, stream: LateStream, out: np.ndarray[Any, Any], blocking: bool) -> None:
        assert not blocking
        assert out.dtype == self.memory.dtype
        assert out.shape == self.memory.shape

        def copy() -> None:
            half = len(out) // 2
            out[:half] = self.memory[:half]
            time.sleep(0)
            out[half:] = self.memory[half:]

        stream.put(copy)


class LateCupy:
    """The module: `compute` is its current stream, `pool` its memory pool."""

    def __init__(self, delay: float, seed: int = 0) -> None:
        self.compute = LateStream(seed, delay)
        self._streams, self._delay, self._seed = [self.compute], delay, seed
        self.pool: list[np.ndarray[Any, Any]] = []
        self.n_pinned = 0
        self.cuda = SimpleNamespace(
            Stream=self._stream, Event=LateEvent, alloc_pinned_memory=self._pinned,
            get_current_stream=lambda: self.compute,
        )  # fmt: skip

    def _stream(self, non_blocking: bool) -> LateStream:
        assert non_blocking  # else it would wait for the default stream
        self._streams.append(LateStream(self._seed + len(self._streams), self._delay))
        return self._streams[-1]

    def _pinned(self, n_bytes: int) -> bytearray:
        self.n_pinned += n_bytes
        return bytearray(n_bytes)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> LateArray:
        for memory in self.pool:
            if memory.shape == shape and memory.dtype == dtype:
                self.pool = [m for m in self.pool if m is not memory]
                return LateArray(memory)
        return LateArray(np.full(shape, -1, dtype))

    def active(self) -> Any:
        return nullcontext()

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
