"""Scores of a block of rows whose components are bounded before they are scored.

Steps of a block: all components coarsely, one of each row exactly, those that could come near it by finer bounds, of
these the one that promises to be better exactly, and then what is left. Why nothing that matters is left out, and why
any component may be the first one, is in docs/pruning.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..backends.numpy_ops import CUTOFF_NATS
from ..backends.operands import Pairs, Projected, Projection
from .factors import Factors
from .pruning import nothing_finer, project
from .scores import ProjectedBlock, Scores

__all__ = ["Tools", "bounded_scores", "count_bounded"]

Array = Any

# How far the value that bounds are compared with may be rounded, relative to the terms that cancel in it.
REFERENCE_ROUNDING = 16 * float(np.finfo(np.float64).eps)
# Components with the highest coarse bounds, of which the one with the highest fine bound is scored first: of fitted
# digits (k = 1,600) the highest coarse bound is right for 58% of the samples, and this one for 91%.
PROMISING = 8


class Tools(NamedTuple):
    """What a block is bounded and scored with."""

    factors: Factors  # or those on the device
    tables: Sequence[Projection]  # a coarse one and, where one follows, a fine one
    ops: ModuleType  # whose `survivors` and `bound_components` are called
    threads: int
    refine: Callable[[Array, Pairs], tuple[Array, Array]]  # values [m] and whitened latents [m, l] of pairs
    buffer: Callable[[str, tuple[int, int], Any], Array]
    xp: Any = np


def bounded_scores(block: ProjectedBlock, tools: Tools, reference: Array | None = None) -> Scores:
    """The components of each row that may carry more than e^-40 / k of its density, scored; `reference` [n] is the
    component that each row is scored under first, None for one that promises much.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        kind = _Rows if tools.xp is np else _RowsThere
        rows = kind(block, tools, PROMISING if reference is None else 0)
        rows.score_first(reference)
        return rows.scores(rows.score_better(rows.survivors()))


def count_bounded(block: ProjectedBlock, tools: Tools) -> tuple[float, float]:
    """Components per row that are bounded finely, and that are scored."""
    with np.errstate(over="ignore", invalid="ignore"):
        rows = _Rows(block, tools, PROMISING)
        rows.score_first(None)
        finely = rows.best.size + np.count_nonzero(~(rows.above < rows.threshold[:, None]))
        scored = len(rows.scores(rows.score_better(rows.survivors())).rows)
        return finely / rows.n, scored / rows.n


class _Rows:
    """A block on its way: bounds [n, k], what was scored, and the threshold [n] of what may be left out."""

    def __init__(self, block: ProjectedBlock, tools: Tools, promising: int) -> None:
        self.block, self.factors, self.tools, self.xp = block, tools.factors, tools, tools.xp
        self.coarse, *finer = tools.tables
        self.fine = finer[-1] if finer else nothing_finer(self.coarse)
        self.n, self.k = len(block.X), self.factors.shape[0]
        self.above = tools.buffer("above", (self.n, self.k), block.coordinates.dtype)
        self.best = self.xp.empty((self.n, min(self.k, promising)), np.int64)
        tools.ops.bound_components(self._projected(self.coarse), self.coarse, self.above, self.best, tools.threads)
        self.value, self.threshold = self.xp.full(self.n, -np.inf), self.xp.full(self.n, -np.inf)
        self._scored: list[tuple[Pairs, Array, Array]] = []

    def _projected(self, table: Projection) -> Projected:
        block = self.block
        return project(block.coordinates, block.sq_norms, block.directions, table.means.shape[1])

    def _tighten(self, threshold: Array) -> Pairs:
        """Bound finely what is at least `threshold` [n], and list what still is."""
        tools, x = self.tools, self._projected(self.fine)
        return Pairs._make(tools.ops.survivors(x, self.fine, threshold, self.above, tools.threads))

    def score_first(self, reference: Array | None) -> None:
        """Score one component of each row."""
        if reference is None:
            reference = self.best[:, 0]
            if self.fine.means.shape[1] and self.best.shape[1] > 1:
                row = self.xp.arange(self.n)
                self._tighten(self.above[row, self.best[:, -1]].astype(np.float64))
                reference = self.best[row, self.above[row[:, None], self.best].argmax(axis=1)]
        self.reference = self.xp.asarray(reference, np.int64)
        order = self.xp.argsort(self.reference * self.n + self.xp.arange(self.n))
        self._score(Pairs(order, self.reference[order]))

    def _score(self, pairs: Pairs) -> None:
        """Score pairs, at most one of a row, and raise thresholds to CUTOFF_NATS + log k below their values."""
        values, latent = self.tools.refine(self.block.X, pairs)
        self._scored.append((pairs, values, latent))
        maha = 2.0 * self.xp.abs(values - self.factors.log_norm[pairs.components])
        known = values - REFERENCE_ROUNDING * (maha + (latent**2).sum(axis=1))
        self.value[pairs.rows] = self.xp.fmax(self.value[pairs.rows], known)
        self.threshold[pairs.rows] = self.value[pairs.rows] - CUTOFF_NATS - math.log(self.k)

    def survivors(self) -> Pairs:
        """What is not scored and cannot be left out."""
        left = self._tighten(self.threshold)
        return _part(left, left.components != self.reference[left.rows])

    def score_better(self, left: Pairs) -> Pairs:
        """Score the component with the highest bound of each row, if that is above the value that is known; what of
        `left` remains.
        """
        bound = self.above[left.rows, left.components].astype(np.float64)
        top = self.value.copy()
        np.fmax.at(top, left.rows, bound)
        better = np.flatnonzero(bound > self.value[left.rows])
        better = better[bound[better] == top[left.rows[better]]]
        if not len(better):
            return left
        better = better[np.unique(left.rows[better], return_index=True)[1]]
        better.sort()
        self._score(_part(left, better))
        keep = ~(bound < self.threshold[left.rows])
        keep[better] = False
        return _part(left, keep)

    def scores(self, left: Pairs) -> Scores:
        """All that was scored, and what is left, by component."""
        if len(left.rows):
            self._scored.append((left, *self.tools.refine(self.block.X, left)))
        pairs, values, latent = (list(each) for each in zip(*self._scored, strict=True))
        if len(pairs) == 1:
            return Scores(self.block.X, pairs[0].rows, pairs[0].components, values[0], latent[0], self.k)
        rows, components, value, y = map(
            self.xp.concatenate, ([p.rows for p in pairs], [p.components for p in pairs], values, latent)
        )
        order = self.xp.argsort(components * self.n + rows)
        return Scores(self.block.X, rows[order], components[order], value[order], y[order], self.k)


class _RowsThere(_Rows):
    """A block on a device, which has no ordered maximum by index: its bounds [n, k] are gone through instead."""

    def score_better(self, left: Pairs) -> Pairs:
        """See :meth:`_Rows.score_better`."""
        xp, row = self.xp, self.xp.arange(self.n)
        bound = xp.where(xp.isnan(self.above), -np.inf, self.above)
        bound[row, self.reference] = -np.inf
        highest = bound.argmax(axis=1)
        better = bound[row, highest] > self.value
        rows = xp.nonzero(better)[0]
        if not len(rows):
            return left
        order = xp.argsort(highest[rows] * self.n + rows)
        self._score(Pairs(rows[order], highest[rows][order]))
        keep = ~(self.above[left.rows, left.components] < self.threshold[left.rows])
        return _part(left, keep & ~(better[left.rows] & (left.components == highest[left.rows])))


def _part(pairs: Pairs, chosen: Array) -> Pairs:
    return Pairs(pairs.rows[chosen], pairs.components[chosen])
