"""What is kept of the distances of all pairs: the matrix, counts, or the nearest pairs.

The nearest are decided by what :func:`~.pairs.solve_pairs` says of a pair, which does not depend on tiles, threads or
what was skipped: of every other pair a bracket of it is enough to see that it is not among them. Of equal distances the
first pair counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Histogram", "Nearest", "RowMinima", "Smallest", "Solve"]

Array = NDArray[Any]
Solve = Callable[[Array, Array], Array]

# Open pairs after which they are solved, so that ties by the million are not held.
MOST_OPEN = 2**16


class Histogram:
    """Counts of distances between edges [b + 1], the last one included."""

    def __init__(self, edges: Array) -> None:
        self.edges, self.counts = edges, np.zeros(len(edges) - 1, np.int64)

    def add(self, lower: Array, upper: Array) -> Array:
        """Count the pairs whose bounds lie between the same two edges; indices of the others in the raveled arrays."""
        bins = self._bins(lower)
        open_ = bins != self._bins(upper)
        self.counts += self._counted(bins[~open_])
        return np.flatnonzero(open_)

    def add_exact(self, distances: Array) -> None:
        """Count distances."""
        self.counts += self._counted(self._bins(distances))

    def _bins(self, values: Array) -> Array:
        """Numbers of bins from 1; 0 and b + 1 are below and beyond."""
        bins: Array = np.searchsorted(self.edges, values.ravel(), side="right")
        bins[values.ravel() == self.edges[-1]] -= 1
        return bins

    def _counted(self, bins: Array) -> Array:
        return np.bincount(bins, minlength=len(self.edges) + 1)[1:-1]


class Nearest:
    """Pairs that may be among those asked for: indices i, j [c], and bounds lower, upper [c], which are equal once a
    pair is solved. ``solve(i, j)`` gives distances.
    """

    def __init__(self, solve: Solve) -> None:
        self.solve = solve
        self.i: Array = np.empty(0, np.int64)
        self.j: Array = np.empty(0, np.int64)
        self.lower: Array = np.empty(0)
        self.upper: Array = np.empty(0)
        self.patience = MOST_OPEN

    def limits(self, rows: Any) -> Array:
        """Above these distances [rows] no pair is among them any more."""
        raise NotImplementedError

    def seeds(self, rows: Any, lower: Array) -> tuple[Array, Array]:
        """Pairs of bounds [rows, k1] that are worth solving first: numbers of rows of `lower`, and columns."""
        raise NotImplementedError

    def _lowered(self, i: Array, upper: Array) -> None:
        """Take notice of the upper bounds of new pairs, which are among ours already."""
        raise NotImplementedError

    def _best(self) -> Array:
        """Which of the pairs, all solved, are among the nearest, in order."""
        raise NotImplementedError

    def add_tile(self, rows: slice, columns: slice, lower: Array, upper: Array) -> None:
        """All pairs of some rows and columns; a pair that has no part in anything has inf."""
        i, j = np.nonzero((lower <= self._limits_with(rows, upper)[:, None]) & (lower < np.inf))
        self.add(i + rows.start, j + columns.start, lower[i, j], upper[i, j])

    def _limits_with(self, rows: slice, upper: Array) -> Array:
        """The limits [rows] once pairs with these upper bounds [rows, columns] are among ours."""
        raise NotImplementedError

    def limits_of(self, rows: slice, least: Array) -> Array:
        """The same of what is known of these bounds where they are on a device: the least of each row."""
        return self._limits_with(rows, least[:, None])

    def add(self, i: Array, j: Array, lower: Array, upper: Array) -> None:
        """Some pairs, each of them once."""
        if not len(i):
            return
        self.i, self.j = np.concatenate([self.i, i]), np.concatenate([self.j, j])
        self.lower, self.upper = np.concatenate([self.lower, lower]), np.concatenate([self.upper, upper])
        self._lowered(i, upper)
        if len(self.i) > self.patience:
            self._keep(self.lower <= self.limits(self.i))
            if np.count_nonzero(self.lower < self.upper) > MOST_OPEN // 2:
                self.settle()
            self.patience = MOST_OPEN + len(self.i)

    def settle(self) -> None:
        """Solve what is open, and keep what is among the nearest."""
        self._keep(self.lower <= self.limits(self.i))
        unsolved = np.flatnonzero(self.lower < self.upper)
        self.lower[unsolved] = self.upper[unsolved] = self.solve(self.i[unsolved], self.j[unsolved])
        self._keep(self._best())

    def _keep(self, which: Array) -> None:
        self.i, self.j, self.lower, self.upper = (part[which] for part in (self.i, self.j, self.lower, self.upper))


class Smallest(Nearest):
    """The `count` nearest pairs."""

    def __init__(self, solve: Solve, count: int) -> None:
        super().__init__(solve)
        self.count = count

    def limits(self, rows: Any) -> Array:
        """One limit: the upper bound that `count` pairs do not exceed."""
        return np.asarray(_nth(self.upper, self.count))

    def _limits_with(self, rows: slice, upper: Array) -> Array:
        flat = upper.ravel()
        few = np.partition(flat, self.count - 1)[: self.count] if flat.size > self.count else flat
        return np.full(len(upper), _nth(np.concatenate([self.upper, few]), self.count))

    def _lowered(self, i: Array, upper: Array) -> None:
        self._keep(self.lower <= self.limits(self.i))

    def seeds(self, rows: Any, lower: Array) -> tuple[Array, Array]:
        """The `count` lowest."""
        flat, limit = lower.ravel(), float(self.limits(rows))
        # Of those that may be among them: the first strips make them few.
        few = np.flatnonzero(flat <= limit if limit < np.inf else flat < np.inf)
        if self.count == 1 and len(few):
            few = few[[flat[few].argmin()]]
        elif len(few) > self.count:
            few = few[np.argpartition(flat[few], self.count - 1)[: self.count]]
        i, j = np.divmod(few, max(lower.shape[1], 1))
        return i, j

    def _best(self) -> Array:
        # By distance, then by pair: ties come out the same whatever the tiles.
        return np.lexsort((self.j, self.i, self.upper))[: self.count]


class RowMinima(Nearest):
    """The nearest of the other side for each of k0 components."""

    def __init__(self, solve: Solve, k0: int) -> None:
        super().__init__(solve)
        self.least: Array = np.full(k0, np.inf)

    def limits(self, rows: Any) -> Array:
        """The smallest upper bound of each row."""
        return np.asarray(self.least[rows])

    def _limits_with(self, rows: slice, upper: Array) -> Array:
        return np.asarray(np.minimum(self.least[rows], upper.min(axis=1)))

    def _lowered(self, i: Array, upper: Array) -> None:
        np.minimum.at(self.least, i, upper)

    def seeds(self, rows: Any, lower: Array) -> tuple[Array, Array]:
        """The lowest of each row."""
        j = lower.argmin(axis=1)
        least = lower[np.arange(len(j)), j]
        i = np.flatnonzero((least <= self.limits(rows)) & (least < np.inf))
        return i, j[i]

    def _best(self) -> Array:
        order = np.lexsort((self.j, self.upper, self.i))
        rows = self.i[order]
        first = np.ones(len(order), bool)
        first[1:] = rows[1:] != rows[:-1]
        # What was solved may be less than the bound that was taken before.
        np.minimum.at(self.least, self.i, self.upper)
        return order[first]


def _nth(values: Array, count: int) -> float:
    """The `count`-th smallest value; inf where there are fewer."""
    return float(np.partition(values, count - 1)[count - 1]) if len(values) >= count else np.inf
