"""Linear classifiers: the distance to the nearest of the planes on which another class ties with the true one.

Within that distance the true class has the largest value, and on the nearest plane's foot it has not: nothing is left
open but rounding, of the classifier itself too, which is taken off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...gradient.closed_form import ClosedForm
from ...gradient.settings import Settings
from ...models.linear import ROUNDINGS, LinearVictim
from .bracket import Bracket

__all__ = ["LinearBracketer"]

Array = NDArray[Any]

# Of our own sums, beside the classifier's.
EPS = float(np.finfo(np.float64).eps)
# Relative; for the arithmetic of a length.
MARGIN = 1e-12


class LinearBracketer:
    """Exact brackets of a linear classifier."""

    def __init__(self, victim: LinearVictim) -> None:
        self.victim = victim
        self.raise_if_cancelled: Callable[[], None] = lambda: None

    def resize(self, rows: int) -> None:
        """Nothing here depends on the height of a block."""

    def bracket(self, X: Array, y: Array | None) -> Bracket:
        """Brackets of samples X [n, d] of classes y [n]."""
        found = Bracket(self.victim, X, y)
        walk = ClosedForm(self.victim, X, y)
        walk.run(Settings())
        found.here, found.state = walk.here, walk.state
        right = found.rows()
        found.lower[right] = self._distances(X[right].astype(np.float64), found.state.y[right])
        found.examined[right] = self.victim.n_classes - 1
        return found

    def _distances(self, X: Array, y: Array) -> Array:
        """To the nearest plane, less rounding, [n]; infinite where all classes have the same weights."""
        W, b = self.victim.differences(y)
        rows = np.arange(len(X))
        slope = np.linalg.norm(W, axis=2)
        margin = -(np.einsum("ncd,nd->nc", W, X) + b)
        joint = np.abs(self.victim.scores(X, y)[0]).max(axis=1, initial=0.0)
        unit = ROUNDINGS * np.sqrt(X.shape[1]) * (self.victim.unit + EPS)
        noise = unit * (self.victim.steepest * np.linalg.norm(X, axis=1) + joint)[:, None]
        # At a distance r the sizes that round may be larger by as much as the values change.
        steep = slope + 2.0 * unit * self.victim.steepest
        distance = np.divide(margin - noise, steep, out=np.full_like(margin, np.inf), where=slope > 0)
        distance[rows, y] = np.inf
        constant = (slope == 0) & (margin - noise <= 0)
        constant[rows, y] = False
        distance[constant] = 0.0
        return np.asarray(np.maximum(distance.min(axis=1, initial=np.inf), 0.0) * (1.0 - MARGIN))
