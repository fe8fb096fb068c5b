"""The nearest neighbour: the shortest way into a cell of another class's prototypes (Wang et al. 2019, "Evaluating the
robustness of nearest neighbor classifiers: a primal-dual perspective").

A sample changes its class only where some prototype of another class is nearer than all of its own class. For each such
prototype that is a small quadratic problem; those that a bisector shows to be farther than the best way known are left
out. Nothing is left open but rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...._threads.process import single_threaded_products
from ...models.neighbours import EPS, NeighbourVictim
from .bracket import Bracket
from .cells import Cell, nearest_in_cell

__all__ = ["NeighbourBracketer"]

Array = NDArray[Any]

# Bisectors with so many of the nearest prototypes of the own class bound the way into every cell at first.
SCREENS = 8
# Rounding of a squared distance from inner products, in units of √d ε of the squares.
ROUNDINGS = 16.0
# A prototype that is nearer to one of the sample's own class than this share of its length is taken for its duplicate:
# neither wins anywhere for sure.
DUPLICATE = 1e-7


class NeighbourBracketer:
    """Exact brackets of a classifier by its nearest prototype."""

    def __init__(self, victim: NeighbourVictim) -> None:
        self.victim = victim
        self.raise_if_cancelled: Callable[[], None] = lambda: None

    def resize(self, rows: int) -> None:
        """Nothing here depends on the height of a block."""

    def bracket(self, X: Array, y: Array | None) -> Bracket:
        """Brackets of samples X [n, d] of classes y [n], one after the other."""
        found = Bracket(self.victim, X, y)
        self._settle_ties(found, X, y)
        with single_threaded_products():  # the same bits with any number of threads
            for i in found.rows():
                self.raise_if_cancelled()
                x = found.here[i].copy()
                delta, lower, examined = self._sample(x, int(found.state.y[i]))
                found.put(int(i), None if delta is None else x + delta, lower, examined)
        return found

    def _settle_ties(self, found: Bracket, X: Array, y: Array | None) -> None:
        """Of a sample that is as near to two classes, to rounding, the classifier itself says which one it has."""
        state, victim = found.state, self.victim
        joint, choice = victim.scores(found.here, state.y)
        rows = np.arange(len(X))
        margin = joint[rows, state.y] - joint[rows, choice.target_class]
        tied = np.flatnonzero(np.abs(margin) <= victim.rounding(found.here, state.y, joint, choice))
        if not len(tied):
            return
        labels = np.asarray(victim.clf.predict(X[tied].astype(victim.dtype)))
        predicted = np.searchsorted(victim.form.classes, labels)
        if y is None:
            state.y[tied] = predicted
        state.y_adv[tied] = predicted
        wrong = predicted != state.y[tied]
        state.already_wrong[tied] = wrong
        state.reason[tied] = np.where(wrong, "already wrong", "max_steps")

    def _sample(self, x: Array, y: int) -> tuple[Array | None, float, int]:
        """The shortest way to another class [d] or None, the bound, and the problems solved."""
        victim = self.victim
        x = x - victim.center
        square, S, norms = float(x @ x), victim.centered, victim.squares
        squares = np.maximum(norms + square - 2.0 * (S @ x), 0.0)
        own = slice(victim.first[y], victim.first[y + 1])
        others = np.concatenate([np.arange(0, own.start), np.arange(own.stop, len(S))])
        if own.stop == own.start or not len(others):
            return None, 0.0 if len(others) else np.inf, 0
        noise = self._noise(x, square)
        cell = Cell(x, S[own], norms[own], squares[own], noise)
        bounds = _screen(cell, S, norms, squares, others)
        order = np.argsort(bounds, kind="stable")
        best, way, lower, examined = np.inf, None, np.inf, 0
        for j in order:
            if bounds[j] >= best:
                break
            self.raise_if_cancelled()
            p = S[others[j]]
            bound, delta, solved = nearest_in_cell(cell, p, best)
            lower, examined = min(lower, bound), examined + solved
            inside = None if delta is None else _inwards(cell, p, delta)
            if delta is not None and inside is not None and np.linalg.norm(delta) < best:
                best, way = float(np.linalg.norm(delta)), inside
        return way, min(lower, best), examined

    def _noise(self, x: Array, square: float) -> float:
        """What rounding may change a margin of squares by: of ours about the centre, of the classifier's about 0."""
        victim, root = self.victim, np.sqrt(len(x))
        own = ROUNDINGS * (square + float(victim.squares.max()))
        center = float(victim.center @ victim.center)
        theirs = 8.0 * 2.0 * (square + float(victim.squares.max()) + 2.0 * center)
        return float(root * EPS * (own + theirs))


def _screen(cell: Cell, S: Array, norms: Array, squares: Array, others: Array) -> Array:
    """The distance to the farthest bisector of each other prototype with the nearest ones of the own class, [.]."""
    nearest = np.argsort(cell.squares, kind="stable")[:SCREENS]
    near = cell.own[nearest]
    apart = norms[others, None] + cell.own_squares[nearest] - 2.0 * (S @ near.T)[others]
    apart = np.sqrt(np.maximum(apart, 0.0) + 2.0 * cell.noise)
    gained = 0.5 * (squares[others, None] - cell.squares[nearest]) - cell.noise
    return np.asarray(np.maximum((gained / apart).max(axis=1), 0.0)) * (1.0 - 1e-12)


def _inwards(cell: Cell, p: Array, delta: Array) -> Array | None:
    """A way to a cell's edge, extended towards its prototype by as much as rounding needs: there every own prototype is
    farther by half of its squared distance from p. None where that is not enough, as for a duplicate.
    """
    apart = cell.own_squares + float(p @ p) - 2.0 * (cell.own @ p)
    k = int(apart.argmin())
    duplicate = DUPLICATE * np.sqrt(float(p @ p) + float(cell.own_squares[k]))
    if apart[k] <= 4.0 * cell.noise or np.linalg.norm(cell.own[k] - p) <= duplicate:
        return None
    return np.asarray(delta + 4.0 * cell.noise / float(apart[k]) * (p - cell.x - delta))
