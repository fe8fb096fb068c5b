"""Rows shared out among threads, each with one core for its products and our kernels alike.

Not the threads of the matrix product and those of our kernels in turn: the product's go on spinning for up to a tenth
of a second after it is done, on the cores that the kernels then need (an EM step on MNIST zeros, k = 25, l = 6, took
43 ms on two cores like that, and takes 25 ms like this).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import Any

from ._threads import forked, single_threaded_products

__all__ = ["Crew", "may_share"]


def may_share() -> bool:
    """Whether this process may start threads: not a forked child, which computes in one, nor one about to end."""
    return not forked() and threading.main_thread().is_alive()


class Crew:
    """A context with `count` threads; while it is open, every matrix product of this process runs in one thread."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._stop = threading.Event()
        self._products = single_threaded_products()

    def __enter__(self) -> Crew:
        self._products.__enter__()
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="mfakit")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()  # after Ctrl-C the threads end with their block, not with their rows
        try:
            self._pool.shutdown(wait=True, cancel_futures=True)
        finally:
            self._products.__exit__(None, None, None)

    def share(self, n_rows: int, work: Callable[..., None], *args: Any) -> None:
        """``work(thread, start, end, *args)`` for as many rows in each; the error raised is that of the first rows."""
        edges = [n_rows * i // self.count for i in range(self.count + 1)]
        for task in [self._pool.submit(work, i, *part, *args) for i, part in enumerate(pairwise(edges))]:
            task.result()

    def heed(self) -> None:
        """Called by `work` before each block: raises where the others have been given up."""
        if self._stop.is_set():
            raise CancelledError
