"""One pass over the data by several threads, each with its own rows and its own sums."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import chain
from typing import Any

from numpy.typing import NDArray

from .._arrays.options import Options
from .._arrays.rows import RowBlocks
from .._arrays.sharing import useful_threads
from .._threads.rows import Crew, open_crew
from ..backends.host_arrays import Host
from ..mixture.density import in_order
from ..mixture.evaluator import Evaluator
from ..mixture.mfa import MFA
from ..mixture.pruning import Pruner
from ..mixture.resident import ResidentMFA
from .bounds import Bounds
from .source import Part, Source
from .statistics import Statistics

__all__ = ["expectation", "open_helpers"]

Array = NDArray[Any]

# Threads share a pass where each may have its own sums within this much memory in all, else the kernels' own are used;
WORKER_BYTES = 2**28
# and where each has this many multiplications to do, which is some milliseconds.
WORKER_STEPS = 2**23
# Loadings of fewer values are factorized, or made by an M-step, in less time than it takes to share them out.
SHARED_VALUES = 2**20


def expectation(mfa: MFA, source: Source, bounds: Bounds | None = None) -> Statistics:
    """The statistics of all rows of the source under `mfa`: one pass, one block in memory.

    The sums of a mixture that stays on a device stay there, but for the small ones. `bounds` says which components can
    be left out, as in the steps before; None scores all by the dense product. Which thread takes which rows is fixed,
    so the result is the same bytes at each call; another number of threads changes rounding only.
    """
    count, options = _plan(mfa, source)
    helpers = _helpers(mfa, source)
    if helpers > 1:
        with open_crew(helpers) as crew:
            mfa.factorize(crew.share)
    parts = _numbered(source.parts())
    first = next(parts)
    pruner = None if bounds is None else bounds.pruner(mfa, first[1])
    with open_crew(max(count, helpers)) as crew:  # what threads read is made once, by all of them
        if pruner is not None:
            pruner.prepare(source.survey.dtype, crew.share)
        elif count > 1:
            mfa.factors.prepare(source.survey.dtype)
    with open_crew(count) as crew:
        workers = [_Worker(mfa, options, crew, pruner, bounds, source.arrays) for _ in range(count)]

        def add(i: int, start: int, end: int, number: int, rows: RowBlocks, weights: Array | None) -> None:
            workers[i].add(rows, weights, number, start, end)

        for number, rows, weights in chain([first], parts):
            crew.share(len(rows), add, number, rows, weights)
    total, *others = (worker.stats for worker in workers)
    for each in others:
        total += each
    with total.arrays.active():
        if isinstance(mfa, ResidentMFA):
            total.read_small()
        else:
            total = total.to_host()
    if bounds is not None:
        bounds.finish(total.candidates)
    return total


def open_helpers(mfa: MFA, source: Source) -> AbstractContextManager[Crew]:
    """A crew for what is done once for each component of a mixture."""
    return open_crew(_helpers(mfa, source))


def _helpers(mfa: MFA, source: Source) -> int:
    size = mfa.n_components * mfa.n_features * mfa.n_factors
    return 1 if source.on_device or size < SHARED_VALUES else useful_threads(source.options)


def _numbered(parts: Iterator[Part]) -> Iterator[tuple[int, RowBlocks, Array | None]]:
    """With the number of their first row."""
    number = 0
    for rows, weights in parts:
        yield number, rows, weights
        number += len(rows)


def _plan(mfa: MFA, source: Source) -> tuple[int, Options]:
    """How many threads share a pass, and the options of each."""
    k, d, l, options = mfa.n_components, mfa.n_features, mfa.n_factors, source.options
    own = replace(options, n_threads=1)
    if source.on_device or options.threads == 1:
        return 1, options
    if source.survey.n_rows * d * k * (l + 1) < WORKER_STEPS * options.threads:  # the kernels' threads would lose time
        return 1, own if useful_threads(options) > 1 else options
    fits = options.threads * 8 * k * d * (l + 2) <= WORKER_BYTES
    return (options.threads, own) if fits else (1, options)


class _Worker:
    """Statistics of some rows, and the buffers of the block at hand, of which all workers together have one."""

    def __init__(
        self, mfa: MFA, options: Options, crew: Crew, pruner: Pruner | None, bounds: Bounds | None, arrays: Host
    ) -> None:
        with arrays.active():
            self.stats = Statistics.zeros(mfa, arrays)
        self.options, self.crew = options, crew
        self.pruner, self.bounds = pruner, bounds
        self.evaluator: Evaluator | None = None

    def add(self, rows: RowBlocks, weights: Array | None, number: int, start: int, end: int) -> None:
        """Add rows start:end, block by block; `number` is that of row 0 in the source."""
        bounds = self.bounds

        def work(evaluator: Evaluator, block: Any, first: int) -> None:
            known, part = number + first, slice(first, first + len(block))
            reference = None if bounds is None else bounds.reference(known, known + len(block))
            scores = evaluator(block, first, rows.name, reference)
            self.stats.add_block(scores, evaluator, None if weights is None else weights[part])
            if bounds is not None and self.pruner is not None:
                bounds.remember(known, scores.best())

        self.evaluator = in_order(
            rows, self.stats.mfa.factors, self.options, work, start, end, self.pruner, self.crew, self.evaluator
        )
