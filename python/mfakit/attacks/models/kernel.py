"""Machines of RBF kernels under attack."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._arrays.options import Options
from ...classifiers.svm.kernel_machine import RBFMachine
from ..state import Choice
from .differentiable import MachineVictim

__all__ = ["KernelVictim"]

Array = Any  # NumPy's


class KernelVictim(MachineVictim):
    """A machine of RBF kernels: scores and gradients by its products in float64, without the classifier's input checks.

    Its decision is the difference of the two sums Σ_{a>0} a K and Σ_{a<0} |a| K. With `log_ratio` its direction is the
    difference of their log-gradients, which points from one class to the other even where the kernels vanish.
    """

    def __init__(self, clf: Any, options: Options, sample: Array, machine: RBFMachine, log_ratio: bool = False) -> None:
        self.machine, self.log_ratio = machine, log_ratio
        self._last: tuple[Array, Array] | None = None
        super().__init__(clf, options, sample)

    def rounding(self, X: Array, y: Array, joint: Array, choice: Choice) -> Array:
        """The largest possible rounding of a margin, [n]."""
        return 2 * self.machine.rounding(X, self._kernel(X))

    def direction(self, X: Array, y: Array, choice: Choice) -> Array:
        """Gradient of the margin, or of its log-ratio, [n, d]."""
        if not self.log_ratio:
            return super().direction(X, y, choice)
        return self.machine.log_ratio_gradient_of(X, self._coefficients(y, choice))

    def margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        """Gradient of the margin itself, scaled."""
        return super().direction(X, y, choice)

    def _coefficients(self, y: Array, choice: Choice) -> Array:
        """Coefficients of the other class's score minus the true one's, [n, m]."""
        a = self.machine.coefficients
        if len(a) == 1:
            return np.where(y == 0, 1.0, -1.0)[:, None] * a
        return np.asarray(a[choice.target_class] - a[y])

    def _decide(self, X: Array) -> Array:
        return self.machine.values(X, self._kernel(X))

    def _margin_gradient(self, X: Array, y: Array, choice: Choice) -> Array:
        return self.machine.gradient_of(X, self._coefficients(y, choice), self._kernel(X))

    def _kernel(self, X: Array) -> Array:
        """Kernels of a block, kept for the next call: a step needs them for the scores and again for the direction."""
        if self._last is None or not np.array_equal(self._last[0], X):
            self._last = X.copy(), self.machine.kernel(X)
        return self._last[1]

    def _unit(self, sample: Array) -> float:
        return 2.0**-53
