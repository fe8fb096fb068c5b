"""Copies beside the computation, on streams that run late: every block must be read whole, and none too early."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from emulator.fake_streams import LateArray, LateCupy

from mfakit.backends._cuda import download as _download
from mfakit.backends._cuda import upload as _upload
from mfakit.backends._cuda.download import Downloader
from mfakit.backends._cuda.upload import Uploader


@pytest.fixture(params=[0, 1, 2])
def late(request: pytest.FixtureRequest) -> Iterator[LateCupy]:
    cupy = LateCupy(2e-3, request.param)
    yield cupy
    cupy.close()


def _computed(cupy: LateCupy, X: np.ndarray[Any, Any], rows: int, kernels: int = 1) -> np.ndarray[Any, Any]:
    """X as the computation's stream read it from the device, block by block, as Cuda.blocks hands them out."""
    seen = np.full_like(X, -2)
    uploader = Uploader(cupy, cupy.active, (min(rows, len(X)), X.shape[1]), X.dtype)
    try:
        ticket = uploader.start(X[:rows])
        for first in range(0, len(X), rows):
            stop = min(first + rows, len(X))
            block = uploader.get(ticket, stop - first)
            following = uploader.start(X[stop : stop + rows]) if stop < len(X) else None
            for _ in range(kernels - 1):
                cupy.compute.put(lambda: None)
            cupy.compute.put(lambda b=block, f=first, s=stop: seen.__setitem__(slice(f, s), b.memory))
            uploader.done(ticket)
            ticket = following
    finally:
        uploader.close()
    cupy.compute.synchronize()
    return seen


@pytest.mark.parametrize("kernels", [1, 10])  # the copies are behind, or the computation
@pytest.mark.parametrize(
    ("n", "rows", "chunk"), [(32, 8, 3), (31, 7, 100), (12, 1, 1), (5, 9, 2), (300, 100, 2)]
)  # fmt: skip
def test_blocks_arrive_whole(late: LateCupy, monkeypatch: Any, n: int, rows: int, chunk: int, kernels: int) -> None:
    X = np.random.default_rng(0).normal(size=(n, 3)).astype("float32")
    monkeypatch.setattr(_upload, "CHUNK_BYTES", chunk * 3 * 4)
    np.testing.assert_array_equal(_computed(late, X, rows, kernels), X)
    slots = 2 * min(_upload.COPY_THREADS * 2, -(-min(rows, n) // chunk))
    assert late.n_pinned <= max(slots, 2) * chunk * 12  # page-locked memory does not grow with X


def test_memory_that_earlier_kernels_still_read(late: LateCupy) -> None:
    old, read = np.full((4, 3), 7.0), np.zeros((4, 3))
    for _ in range(5):  # kernels that come to `old` late
        late.compute.put(lambda: None)
    late.compute.put(lambda: read.__setitem__(slice(None), old))
    late.pool = [old]
    X = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(_computed(late, X, 4), X)
    np.testing.assert_array_equal(read, 7.0)


def test_a_copy_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("cudaErrorIllegalAddress")

    monkeypatch.setattr(LateArray, "set", fail)
    cupy = LateCupy(0.0)
    with pytest.raises(RuntimeError, match="cudaErrorIllegalAddress"):
        _computed(cupy, np.ones((6, 2)), 2)
    cupy.close()


def test_blocks_without_columns(late: LateCupy) -> None:
    assert _computed(late, np.ones((3, 0)), 2).shape == (3, 0)


@pytest.mark.parametrize("kernels", [1, 10])
@pytest.mark.parametrize(("n", "rows", "chunk"), [(32, 8, 3), (31, 7, 100), (12, 1, 1), (5, 9, 2), (300, 100, 2)])
def test_results_arrive_whole(late: LateCupy, monkeypatch: Any, n: int, rows: int, chunk: int, kernels: int) -> None:
    """Each is brought when it is computed, and before another one is computed in its place."""
    monkeypatch.setattr(_download, "CHUNK_BYTES", chunk * 3 * 4)
    X, out = np.random.default_rng(0).normal(size=(n, 3)).astype("float32"), np.full((n, 3), -2, "float32")
    downloader = Downloader(late, late.active, (min(rows, n), 3), X.dtype)
    try:
        for first in range(0, n, rows):
            part = slice(first, min(first + rows, n))
            place = downloader.place(part.stop - first)
            for _ in range(kernels - 1):
                late.compute.put(lambda: None)
            late.compute.put(lambda p=place, x=X[part]: p.memory.__setitem__(slice(None), x))
            downloader.start(out[part])
        downloader.finish()
    finally:
        downloader.close()
    np.testing.assert_array_equal(out, X)
    assert late.n_pinned <= max(2 * min(16, -(-min(rows, n) // chunk)), 2) * chunk * 12


def test_results_are_given_up_with_the_work(late: LateCupy) -> None:
    out = np.zeros((8, 3))
    downloader = Downloader(late, late.active, (8, 3), np.float64)
    downloader.place(8)
    downloader.start(out)
    downloader.close()  # without finish: the work has failed
    assert not any(thread.name.startswith("mfakit-copy") for thread in threading.enumerate())
