"""Rows shared out among threads, each with one core for its products and our kernels alike.

Not the threads of the matrix product and those of our kernels in turn: the product's go on spinning for up to a tenth
of a second after it is done, on the cores that the kernels then need (an EM step on MNIST zeros, k = 25, l = 6, took
43 ms on two cores like that, and takes 25 ms like this).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

from .process import run_together, single_threaded_products
from .room import is_scarce

__all__ = ["Crew", "open_crew"]


class Crew:
    """Threads that share rows; :func:`open_crew` makes it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._cancelled = threading.Event()

    def share(self, n_rows: int, work: Callable[..., Any], *args: Any) -> None:
        """``work(thread, start, end, *args)`` for as many rows in each; the error raised is that of the first rows."""
        if self.count == 1:
            work(0, 0, n_rows, *args)
            return
        edges = [n_rows * i // self.count for i in range(self.count + 1)]
        run_together([partial(work, i, *part, *args) for i, part in enumerate(pairwise(edges))], self._cancelled)

    def raise_if_cancelled(self) -> None:
        """Called by `work` before each block: raises if the work was cancelled."""
        if self._cancelled.is_set():
            raise CancelledError


def open_crew(count: int) -> AbstractContextManager[Crew]:
    """A crew of `count` threads; while it is open, every matrix product of this process runs in one thread. A crew of
    one is the thread that calls, and products keep their threads unless memory is scarce.
    """
    if count == 1 and not is_scarce():
        return nullcontext(Crew(1))
    crew: AbstractContextManager[Crew] = single_threaded_products(gives=Crew(count))
    return crew
