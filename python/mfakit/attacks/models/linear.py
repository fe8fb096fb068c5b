"""Linear classifiers under attack: their nearest boundary is known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._arrays.options import Options
from ...classifiers.recognise.forms import LinearForm
from ..state import Choice
from .differentiable import MachineVictim

__all__ = ["ROUNDINGS", "LinearVictim"]

Array = Any  # NumPy's

# Roundings of a sum of d products, in units of √d of their size.
ROUNDINGS = 4.0


class LinearVictim(MachineVictim):
    """f = W x + b, in float64: W [1 or C, d], b [1 or C]. Its nearest boundary is known in closed form."""

    def __init__(self, clf: Any, options: Options, sample: Array, form: LinearForm) -> None:
        self.weights, self.intercept = form.weights, form.intercept
        self.steepest = float(np.linalg.norm(form.weights, axis=1).max(initial=0.0))
        self.own_unit = max(form.unit, 2.0**-24) if form.stepwise and sample.dtype.itemsize < 8 else form.unit
        super().__init__(clf, options, sample)

    def differences(self, y: Array) -> tuple[Array, Array]:
        """W_c - W_y [n, C, d] and b_c - b_y [n, C] for every class c against the true class y."""
        W, b = self.weights, self.intercept
        if len(W) == 1:
            W, b = np.concatenate([np.zeros_like(W), W]), np.concatenate([[0.0], b])
        return W[None] - W[y][:, None], b[None] - b[y][:, None]

    def _decide(self, X: Array) -> Array:
        return np.asarray(X @ self.weights.T + self.intercept)

    def _margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        W, _ = self.differences(y)
        return np.asarray(W[np.arange(len(X)), choice.target_class])

    def _unit(self, sample: Array) -> float:
        return self.own_unit

    def rounding(self, X: Array, y: Array, joint: Array, choice: Choice) -> Array:
        """The largest possible rounding of a margin, [n]: of the scores themselves, whose weights may be longer than
        their differences.
        """
        size = self.steepest * np.linalg.norm(X, axis=1) + np.abs(joint).max(axis=1, initial=0.0)
        return np.asarray(ROUNDINGS * np.sqrt(X.shape[1]) * self.unit * size)
