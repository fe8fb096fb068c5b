"""What is known of a block of rows under a mixture: the pairs that can matter, and their exact values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays.rows import array_module
from ..backends.operands import Pairs, WeightedPairs
from .directions import Directions

__all__ = ["ProjectedBlock", "Scores", "part_of", "repeated", "sorted_pairs"]

Array = Any  # NumPy's or, on a device, CuPy's


def sorted_pairs(keep: Array, xp: Any = np) -> Pairs:
    """The marked entries of keep [n, k], sorted by component; waits for a device."""
    components, rows = xp.nonzero(keep.T)
    return Pairs(xp.ascontiguousarray(rows.astype(np.int64)), xp.ascontiguousarray(components.astype(np.int64)))


@dataclass
class Scores:
    """What an :class:`Evaluator` knows of a block of n rows; the arrays are reused by its next call.

    rows, components [m] are the refined pairs, sorted by component; values [m] their log (weight N(x)) and
    whitened_latent [m, l] their y = W (x - μ). `dense` [n, k] has the coarse values of the others too; None where they
    are not kept, or were bounded instead: all that is missing carries less than e^-40 of a row's density. On a device
    `by_row` are an order [m] of the pairs by row and where in it each row's begin [n + 1], where these are known.
    """

    X: Array
    rows: Array
    components: Array
    values: Array
    whitened_latent: Array
    n_components: int
    dense: Array | None = None
    by_row: tuple[Array, Array] | None = None

    @property
    def log_prob(self) -> Array:
        """log (weight N(x)) [n, k]; -inf where nothing was kept."""
        if self.dense is None:
            self.dense = array_module(self.values).full((len(self.X), self.n_components), -np.inf)
            self.dense[self.rows, self.components] = self.values
        return self.dense

    def most_likely(self, index: Array) -> Array:
        """The most likely component of the rows `index`."""
        if self.dense is not None:
            return self.dense[index].argmax(axis=1)
        xp, n = array_module(self.values), len(index)
        place = xp.full(len(self.X), n)
        place[index] = xp.arange(n)
        log_prob = xp.full((n + 1, self.n_components), -np.inf)
        log_prob[place[self.rows], self.components] = self.values
        return log_prob[:n].argmax(axis=1)

    def best(self) -> Array:
        """The most likely component [n] of each row among the pairs, on the host."""
        top, found = np.full(len(self.X), -np.inf), np.zeros(len(self.X), np.int64)
        np.fmax.at(top, self.rows, self.values)
        at = np.flatnonzero(self.values == top[self.rows])
        found[self.rows[at]] = self.components[at]
        return found

    def totals(self) -> tuple[Array, Array]:
        """log p(x) [n] and the pairs' shares in it [m], of arrays on the host, from the pairs alone."""
        n = len(self.X)
        top = np.full(n, -np.inf)
        np.maximum.at(top, self.rows, self.values)
        base = np.where(np.isfinite(top), top, 0.0)
        share = np.exp(self.values - base[self.rows])
        total = np.bincount(self.rows, share, minlength=n)
        with np.errstate(divide="ignore"):
            log_total = np.log(total) + base
        return log_total, share / np.where(total > 0, total, 1.0)[self.rows]


@dataclass
class ProjectedBlock:
    """A block that several mixtures share: its rows, their squared lengths from the centre in each group of features
    [n, G], their coordinates and what these are along.
    """

    X: Array
    sq_norms: Array
    coordinates: Array
    directions: Directions


def repeated(rows: Array, n: int) -> Array:
    """Which of n rows occur more than once, bool [n]; on the host."""
    return np.bincount(rows, minlength=n) > 1


def part_of(pairs: WeightedPairs, mask: Array, xp: Any) -> WeightedPairs:
    """The pairs that `mask` [m] marks."""
    chosen = xp.nonzero(mask)[0]
    return WeightedPairs._make(array[chosen] for array in pairs)
