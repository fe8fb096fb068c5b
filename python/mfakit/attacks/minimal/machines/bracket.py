"""What the three kinds of machines share: a block of samples with a bracket for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...state import State

__all__ = ["Bracket", "Bracketer"]

Array = NDArray[Any]

# Samples with larger features end without a certificate, because their squares are beyond float64.
LARGEST = 1e100


class Bracket:
    """A block of samples X [n, d]: the points `here` [n, d] float64, the `state`, `lower` [n] and how many problems
    were solved for each, `examined` int64 [n].
    """

    def __init__(self, victim: Any, X: Array, y: Array | None) -> None:
        self.here = X.astype(np.float64)
        self.state = State.of(victim, self.here, y)
        self.lower, self.examined = np.zeros(len(X)), np.zeros(len(X), np.int64)
        with np.errstate(invalid="ignore"):
            self.within_range = np.abs(self.here).max(axis=1, initial=0.0) <= LARGEST

    def rows(self) -> Array:
        """The samples to bracket: those that are right, and whose squares are numbers."""
        return np.flatnonzero(~self.state.already_wrong & self.within_range)

    def give_up(self) -> None:
        """Samples without a point and without a bound say so; so do those beyond float64's squares."""
        state = self.state
        state.flipped &= self.within_range
        self.lower[~self.within_range] = 0.0
        lost = ~state.already_wrong & ~state.flipped & ~(self.lower > 0)
        state.reason[lost], self.lower[lost] = "not certified", 0.0

    def put(self, i: int, point: Array | None, lower: float, examined: int) -> None:
        """What was found for sample i: a point [d] beyond the boundary or None, and the bound."""
        state = self.state
        self.lower[i], self.examined[i] = lower, examined
        state.n_steps[i] = examined
        state.flipped[i] = point is not None
        state.reason[i] = "no crossing" if point is None else "flipped"
        if point is not None:
            self.here[i] = point


class Bracketer(Protocol):
    """A kind of machine: brackets for blocks, and the victim that verifies points."""

    victim: Any
    raise_if_cancelled: Callable[[], None]

    def resize(self, rows: int) -> None:
        """Change the maximum block height, in samples."""

    def bracket(self, X: Array, y: Array | None) -> Any:
        """Brackets of samples X [n, d] of classes y [n] (None: the predicted ones)."""
