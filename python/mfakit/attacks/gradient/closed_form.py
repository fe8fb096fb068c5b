"""The nearest boundary of a linear classifier in closed form: one projection instead of a walk.

Class c wins over y beyond the plane (w_c - w_y)·x + b_c - b_y = 0. Inside the ball that just touches the nearest of
these planes y wins over every class, so the projection on that plane is the smallest perturbation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.linear import LinearVictim
from .settings import Settings
from .walk import FeatureWalk

__all__ = ["ClosedForm"]

Array = NDArray[Any]


class ClosedForm(FeatureWalk):
    """One block of samples, each moved by its smallest perturbation and just enough more to flip beyond rounding."""

    victim: LinearVictim

    def __init__(self, victim: LinearVictim, X: Array, y: Array | None, goal: Array | None = None) -> None:
        super().__init__(victim, X, y, goal)
        self.eps = float(np.finfo(X.dtype).eps)

    def run(self, settings: Settings) -> None:
        """Project every rightly classified sample; one whose classes all have the same weights cannot move."""
        state, active = self.state, np.flatnonzero(~self.state.already_wrong)
        X, y, rows = self.here[active], state.y[active], np.arange(len(active))
        W, b = self.victim.differences(y)
        slope = np.linalg.norm(W, axis=2)
        margin = -(np.einsum("ncd,nd->nc", W, X) + b)
        distance = np.divide(margin, slope, out=np.full_like(margin, np.inf), where=slope > 0)
        nearest = distance.argmin(axis=1)
        distance = np.maximum(distance[rows, nearest], 0.0)
        moves = np.isfinite(distance)
        state.choice.target_class[active] = nearest
        joint, choice = self.victim.scores(X, y)
        choice.target_class = nearest
        noise = self.victim.rounding(X, y, joint, choice)
        slope = slope[rows, nearest]
        beyond = 2 * np.divide(noise, slope, out=np.zeros_like(noise), where=moves)
        # A sample within rounding of the plane needs a displacement that verification can lengthen.
        size = np.linalg.norm(X, axis=1)
        beyond += np.where(distance <= 64 * self.eps * size, 4 * self.eps * np.where(size > 0, size, 1.0), 0.0)
        way = np.divide(distance + beyond, slope, out=np.zeros_like(distance), where=moves)
        self.here[active] = X + way[:, None] * W[rows, nearest]
        state.flipped[active] = moves
        state.n_steps[active] = moves
        state.reason[active] = np.where(moves, "flipped", "no gradient")
