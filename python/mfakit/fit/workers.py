"""One pass over the data by several threads, each with its own rows and its own sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from .._arrays.options import Options
from .._arrays.rows import RowBlocks
from .._arrays.sharing import careful_products, useful_threads
from .._threads.rows import Crew, open_crew
from ..backends import get_arrays, get_backend
from ..mixture.evaluator import Evaluator
from ..mixture.mfa import MFA
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
    count, options = _plan(mfa, source)
    if count == 1:
        alone = _Worker(mfa, options, None)
        with careful_products():
            for rows, weights in source.parts():
                alone.add(rows, weights, 0, len(rows))
        return alone.stats
    with open_crew(count) as crew:
        workers = [_Worker(mfa, options, crew) for _ in range(count)]
        mfa.factors.prepare(source.survey.dtype)  # made once, here, and not by each thread

        def add(i: int, start: int, end: int, rows: RowBlocks, weights: Array | None) -> None:
            workers[i].add(rows, weights, start, end)

        for rows, weights in source.parts():
            crew.share(len(rows), add, rows, weights)
    total = workers[0].stats
    for worker in workers[1:]:
        total += worker.stats
    return total


def _plan(mfa: MFA, source: Source) -> tuple[int, Options]:
    """How many threads share a pass, and the options of each."""
    (k, d, l), options = mfa.loadings.shape, source.options
    own = replace(options, n_threads=1)
    if source.on_device or options.threads == 1:
        return 1, options
    if source.survey.n_rows * d * k * (l + 1) < WORKER_STEPS * options.threads:  # the kernels' threads would lose time
        return 1, own if useful_threads(options) > 1 else options
    fits = options.threads * 8 * k * d * (l + 2) <= WORKER_BYTES
    return (options.threads, own) if fits else (1, options)


class _Worker:
    """Statistics of some rows, and the buffers of the block at hand, of which all workers together have one."""

    def __init__(self, mfa: MFA, options: Options, crew: Crew | None) -> None:
        self.stats, self.options, self.crew = Statistics.zeros(mfa), options, crew
        self.evaluator: Evaluator | None = None

    def add(self, rows: RowBlocks, weights: Array | None, start: int, end: int) -> None:
        """Add rows start:end, block by block."""
        factors, options = self.stats.mfa.factors, self.options
        ops = get_backend(options.backend, rows.device)
        arrays = get_arrays(ops, rows.device)
        with arrays.active():
            step = arrays.plan_block(options, rows, factors.n_columns, rows.dtype.itemsize)
            step = max(1, min(step // (self.crew.count if self.crew else 1), end - start))
            if self.evaluator is None or self.evaluator.dtype != rows.dtype or self.evaluator.ops is not ops:
                self.evaluator = Evaluator(factors, ops, rows.dtype, step, options)
            evaluator = self.evaluator

            def work(block: Any, first: int) -> None:
                if self.crew:
                    self.crew.raise_if_cancelled()
                scores, part = evaluator(block, first, rows.name), slice(first, first + len(block))
                self.stats.add_block(scores, evaluator, None if weights is None else weights[part])

            arrays.each_block(rows, step, work, evaluator.resize, start, end)
