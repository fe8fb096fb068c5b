"""One pass over the data by several threads, each with its own rows, its own sums and one core.

Not the threads of the matrix product and those of our kernels in turn: the product's go on spinning for tens of
milliseconds after it is done, on the cores that the kernels then need (an EM step on MNIST zeros, k = 25, l = 6, took
43 ms on two cores like that, and takes 25 ms like this).
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from .._arrays import RowBlocks
from .._options import Options
from .._threads import single_threaded_products
from ..backends import get_arrays, get_backend
from ..density import Evaluator
from ..mfa import MFA
from .source import Source
from .statistics import Statistics

__all__ = ["expectation"]

Array = NDArray[Any]

# Threads share a pass where each may have its own sums within this much memory in all, else the kernels' own are used;
WORKER_BYTES = 2**28
# and where each has this many multiplications to do, which is some milliseconds.
WORKER_STEPS = 2**23


def expectation(mfa: MFA, source: Source) -> Statistics:
    """The statistics of all rows of the source under `mfa`: one pass, one block in memory.

    Which thread takes which rows is fixed, so the result is the same bytes at each call; another number of threads
    changes rounding only.
    """
    count = _count(mfa, source)
    stop = threading.Event()
    workers = [_Worker(mfa, source.options, count, stop) for _ in range(count)]
    if count == 1:
        for rows, weights in source.parts():
            workers[0].add(rows, weights, 0, len(rows))
        return workers[0].stats
    with single_threaded_products(), ThreadPoolExecutor(count) as pool:
        mfa.factors.panel(source.survey.dtype)  # made once, here, and not by each thread
        try:
            for rows, weights in source.parts():
                edges = [len(rows) * i // count for i in range(count + 1)]
                tasks = [
                    pool.submit(worker.add, rows, weights, start, end)
                    for worker, start, end in zip(workers, edges[:-1], edges[1:], strict=True)
                ]
                for task in tasks:  # the first error is that of the first bad row
                    task.result()
        finally:
            stop.set()  # after Ctrl-C the threads end with their block, not with their rows
    total = workers[0].stats
    for worker in workers[1:]:
        total += worker.stats
    return total


def _count(mfa: MFA, source: Source) -> int:
    k, d, l = mfa.loadings.shape
    threads = 1 if source.on_device else source.options.threads
    fits = threads * 8 * k * d * (l + 2) <= WORKER_BYTES
    worthwhile = source.survey.n_rows * d * k * (l + 1) >= WORKER_STEPS * threads
    return threads if fits and worthwhile else 1


class _Worker:
    """Statistics of some rows, and the buffers of the block at hand, of which all workers together have one."""

    def __init__(self, mfa: MFA, options: Options, count: int, stop: threading.Event) -> None:
        self.stats, self.stop, self.count = Statistics.zeros(mfa), stop, count
        self.options = options if count == 1 else replace(options, n_threads=1)
        self.evaluator: Evaluator | None = None

    def add(self, rows: RowBlocks, weights: Array | None, start: int, end: int) -> None:
        """Add rows start:end, block by block."""
        factors, options = self.stats.mfa.factors, self.options
        ops = get_backend(options.backend, rows.device)
        arrays = get_arrays(ops, rows.device)
        with arrays.active():
            step = arrays.plan_block(options, rows, factors.n_columns, rows.dtype.itemsize)
            step = max(1, min(step // self.count, end - start))
            if self.evaluator is None or self.evaluator.dtype != rows.dtype or self.evaluator.ops is not ops:
                self.evaluator = Evaluator(factors, ops, rows.dtype, step, options)
            evaluator = self.evaluator

            def work(block: Any, first: int) -> None:
                if self.stop.is_set():
                    raise CancelledError
                scores, part = evaluator(block, first, rows.name), slice(first, first + len(block))
                self.stats.add_block(scores, evaluator, None if weights is None else weights[part])

            arrays.each_block(rows, step, work, evaluator.resize, start, end)
