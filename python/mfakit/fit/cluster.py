"""Fitting to an array of dask: each pass over the data is a sum over its blocks, computed where they are.

A block is added up on the worker that has it, sums of blocks meet in a tree that the blocks' order decides, and the
client gets one sum and makes the M-step. Which worker had which block changes nothing, and what a lost worker had is
computed again by dask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .._arrays.containers import is_cupy, is_dask
from .._arrays.lazy_rows import as_lazy_rows, sum_over_blocks
from .._arrays.options import Options
from .._arrays.rows import RowBlocks, to_numpy
from .._lazy import lazy
from ..mixture.directions import Directions
from ..mixture.mfa import MFA
from ..mixture.pruning import Pruner
from .bounds import Bounds
from .source import Part, Source, as_weights
from .statistics import Statistics, Totals
from .survey import CENTER_ROWS, Survey, SurveySums, VarianceSums, rough_center

__all__ = ["ClusterSource", "cluster_expectation"]

Array = NDArray[Any]


class ClusterSource(Source):
    """The rows of an array of dask [n, d]. Every pass computes its blocks anew, unless the caller has persisted them.

    Parameters
    ----------
    X : dask.array.Array, [n, d]
    sample_weight : array-like or dask.array.Array, [n], optional
    options : Options

    Raises
    ------
    ValueError
        As :class:`Source`; and for blocks of unknown size, and whatever would have to be on a device.
    """

    # That would be a number of each row on the client.
    remembers: ClassVar[bool] = False

    def __init__(self, X: Any, sample_weight: Any, options: Options) -> None:
        self.X = as_lazy_rows(X)
        if is_cupy(X._meta) or options.backend == "cuda":
            raise ValueError(
                'EM on an array of dask runs on the host: pass backend="auto", and blocks on the host, such as '
                "X.map_blocks(cupy.asnumpy)"
            )
        self.weights = _lazy_weights(sample_weight, self.X)
        super().__init__(self._blocks, options)

    @classmethod
    def from_array(cls, X: Any, sample_weight: Any = None, options: Options | None = None) -> ClusterSource:
        """As :meth:`Source.from_array`."""
        return cls(X, sample_weight, options or Options())

    def sample(self, rng: np.random.Generator, least: int) -> tuple[Array, Array | None]:
        """As :meth:`Source.sample`; these rows alone come to the client."""
        index, weights = self._chosen(rng, least), self._all_weights()
        index = index if weights is None else np.flatnonzero(weights > 0)[index]
        rows = RowBlocks((self.X if len(index) == self.n_read else self.X[index]).compute())
        return to_numpy(rows.block(0, len(rows))), None if weights is None else weights[index]

    def feature_variances(self) -> Array:
        """As :meth:`Source.feature_variances`."""
        weights = self._all_weights()
        first = 0 if weights is None else int(np.flatnonzero(weights > 0)[0])
        origin = self.X[first].compute().astype(np.float64)
        sums: VarianceSums = self.summed((origin, self._task_options()), _variances_of)
        return sums.variances(self.survey.total_weight)

    def summed(self, model: Any, call: Any) -> Any:
        """``call(model, block, start)``, or with the block's weights ``call(model, block, start, weights)``, summed
        over the blocks.
        """
        return sum_over_blocks(self.X, model, call, () if self.weights is None else (self.weights,))

    @lazy
    def head(self) -> RowBlocks:
        """The first rows, on the client."""
        return RowBlocks(self.X[:CENTER_ROWS].compute())

    def _survey(self) -> Survey:
        n, d = self.X.shape
        if not n:
            raise ValueError("X has no rows; fitting needs at least one sample")
        if not d:
            raise ValueError(f"X has 0 feature(s) (shape={self.X.shape}) while a minimum of 1 is required.")
        weights = None if self.weights is None else to_numpy(self.weights[:CENTER_ROWS])
        center = rough_center(self.head, weights)
        sums: SurveySums = self.summed((center, self.head.dtype, self._task_options()), _survey_of)
        self._devices.add(None)
        self._rows_read = n
        return sums.survey()

    def _blocks(self) -> Iterator[Part]:
        """The blocks themselves, which come to the client one after the other."""
        for i in range(self.X.numblocks[0]):
            rows = RowBlocks(self.X.blocks[i].compute())
            yield rows, None if self.weights is None else as_weights(self.weights.blocks[i], len(rows))

    def _all_weights(self) -> Array | None:
        return None if self.weights is None else as_weights(self.weights, self.n_read)

    def _task_options(self) -> Options:
        """The options without what this process has computed of them, such as its number of threads."""
        return replace(self.options)


def _lazy_weights(sample_weight: Any, X: Any) -> Any:
    """Weights as an array of dask in X's blocks of rows; None stays None."""
    if sample_weight is None:
        return None
    import dask.array as da

    if not is_dask(sample_weight):
        return da.from_array(as_weights(sample_weight, len(X)), chunks=(X.chunks[0],))
    if sample_weight.shape != (len(X),):
        raise ValueError(f"sample_weight must have one weight per row, shape ({len(X)},), got {sample_weight.shape}")
    return sample_weight.rechunk((X.chunks[0],))


def cluster_expectation(mfa: MFA, source: ClusterSource, bounds: Bounds) -> Statistics:
    """The statistics of all rows under `mfa`, as of :func:`mfakit.fit.workers.expectation`: the same bytes whichever
    workers there are.
    """
    step = _Step(mfa, source._task_options(), bounds.plan(mfa, source.head))
    stats = Statistics.of(source.summed(step, _totals_of), mfa=mfa)
    bounds.finish(stats.candidates)
    return stats


@dataclass(frozen=True)
class _Step:
    """What a worker needs for the E-step: it is opened once in a process, where its factors and bounds are made."""

    mfa: MFA
    options: Options
    bounds: tuple[Directions, tuple[int, ...]] | None

    @lazy
    def pruner(self) -> Pruner | None:
        return None if self.bounds is None else Pruner([self.mfa.factors], *self.bounds, {})


def _totals_of(step: _Step, block: Any, start: int, weights: Any = None) -> Totals:
    """A block's sums; `start` says nothing here."""
    return Totals.of(Statistics.zeros(step.mfa).add(block, weights, step.options, step.pruner))


def _survey_of(model: tuple[Array, Any, Options], block: Any, start: int, weights: Any = None) -> SurveySums:
    center, dtype, options = model
    rows, sums = RowBlocks(block), SurveySums(center, dtype, start)
    sums.add(rows, as_weights(weights, len(rows), f"sample_weight from row {start} on"), options)
    return sums


def _variances_of(model: tuple[Array, Options], block: Any, start: int, weights: Any = None) -> VarianceSums:
    origin, options = model
    rows, sums = RowBlocks(block), VarianceSums(origin)
    sums.add(rows, as_weights(weights, len(rows)), options)
    return sums
