"""Linear and kernel machines as numbers: what a classifier computes, whichever library made it.

A form with one row decides between two classes, the second where its value is positive; one with C rows takes the class
of the largest value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..svm.kernel_machine import RBFMachine

__all__ = ["KernelForm", "LinearForm", "MachineForm"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LinearForm:
    """f = W (x - center) + offset.

    Attributes
    ----------
    weights : float64 [R, d]
        W; R is 1 for two classes, else C.
    offset : float64 [R]
    center : float64 [d]
        Near the data, so that W x does not cancel against the intercept.
    unit : float
        What the classifier's own rounding of W x is relative to ‖W‖ ‖x‖: that of its dtype, times by how much the sums
        that it takes instead of W x are larger.
    stepwise : bool
        Whether it computes in X's dtype, as the steps of a pipeline do.
    is_decision : bool
        Whether f is the classifier's decision_function, and not only decides as its predict does.
    """

    weights: Array
    offset: Array
    center: Array
    unit: float = 2.0**-53
    stepwise: bool = False
    is_decision: bool = True

    @property
    def n_features(self) -> int:
        """d."""
        return int(self.weights.shape[1])

    @property
    def n_rows(self) -> int:
        """R."""
        return len(self.weights)

    @property
    def intercept(self) -> Array:
        """b [R] of f = W x + b."""
        return np.asarray(self.offset - self.weights @ self.center)

    def values(self, X: Array) -> Array:
        """f [n, R]."""
        return np.asarray((X - self.center) @ self.weights.T + self.offset)

    def sizes(self, X: Array) -> Array:
        """What rounding of f is relative to, [n]."""
        lengths = np.linalg.norm(X, axis=1) + np.linalg.norm(self.center)
        return np.asarray(lengths * np.linalg.norm(self.weights, axis=1).max() + np.abs(self.offset).max())

    def probes(self, n: int) -> Array:
        """Points [n, d] about the boundary, on either side; the same ones at every call."""
        length = np.linalg.norm(self.weights, axis=1).max()
        scale = (1.0 + np.abs(self.offset).max()) / length if length > 0 else 1.0
        return np.asarray(self.center + scale * np.random.default_rng(0).normal(size=(n, self.n_features)))

    def rescaled(self, slopes: Array, shifts: Array) -> LinearForm:
        """slopes [R] · f + shifts [R]."""
        return replace(self, weights=slopes[:, None] * self.weights, offset=slopes * self.offset + shifts)


@dataclass(frozen=True, eq=False)
class KernelForm:
    """f of a machine of RBF kernels; `is_decision` as in :class:`LinearForm`."""

    machine: RBFMachine
    is_decision: bool = True

    @property
    def n_features(self) -> int:
        """d."""
        return int(self.machine.support.shape[1])

    @property
    def n_rows(self) -> int:
        """R: 1 for two classes, else C."""
        return len(self.machine.intercept)

    def values(self, X: Array) -> Array:
        """f [n, R]."""
        return self.machine.values(X)

    def sizes(self, X: Array) -> Array:
        """What rounding of f is relative to, [n]."""
        size = self.machine.kernel(X) @ np.abs(self.machine.coefficients).T
        return np.asarray(size.max(axis=1) + np.abs(self.machine.intercept).max())

    def probes(self, n: int) -> Array:
        """Up to n points [., d]: support vectors from all over their list, and the middles between two of them."""
        step = max(1, 2 * len(self.machine.support) // n)
        support = self.machine.support[::step][: n // 2].astype(np.float64)
        return np.concatenate([support, (support + np.roll(support, 1, axis=0)) / 2])

    def rescaled(self, slopes: Array, shifts: Array) -> KernelForm:
        """slopes [R] · f + shifts [R]."""
        m = self.machine
        machine = RBFMachine(m.support, slopes[:, None] * m.coefficients, slopes * m.intercept + shifts, m.gamma)
        return replace(self, machine=machine)


MachineForm = LinearForm | KernelForm
