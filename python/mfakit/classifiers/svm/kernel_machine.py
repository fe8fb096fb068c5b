"""Kernel expansions f_c(x) = Σ_i a_ci K(x, s_i) + b_c and their gradients, by matrix products.

All float64 and centred, see _gram.py. Support vectors keep their own dtype; blocks of them are converted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KEEP_BYTES", "RBFMachine"]

Array = NDArray[Any]

# Centred float64 support vectors are kept up to this size, and converted block by block at every use beyond it.
KEEP_BYTES = 2**30
MEASURED_ROWS = 64  # at a time, so that they remain in the cache
# Rounding of a sum of kernel values, in units of the last place: some √m for m support vectors.
ROUNDINGS = 128 * float(np.finfo(np.float64).eps)


class RBFMachine:
    """f_c(x) = Σ_i a_ci exp(-γ ‖x - s_i‖²) + b_c, its values and gradients at blocks X [n, d] of float64 samples.

    Parameters
    ----------
    support : [m, d]
        s, in any float dtype.
    coefficients : [C, m]
        a; C = 1 is a machine of two classes whose sign decides.
    intercept : [C]
        b.
    gamma : float
        γ.
    """

    def __init__(self, support: Array, coefficients: Array, intercept: Array, gamma: float) -> None:
        self.support = np.ascontiguousarray(support)
        self.coefficients = np.asarray(coefficients, np.float64)
        self.intercept, self.gamma = np.asarray(intercept, np.float64), float(gamma)
        self.center = self.support.mean(axis=0, dtype=np.float64)
        self.squares = np.empty(len(self.support))
        self._kept: Array | None = None
        for start in range(0, len(self.support), MEASURED_ROWS):
            rows = slice(start, start + MEASURED_ROWS)
            block = self.support[rows] - self.center
            self.squares[rows] = np.einsum("md,md->m", block, block)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    @property
    def kernel_machine(self) -> RBFMachine:
        """Itself: how attacks recognise what has such a machine."""
        return self

    @property
    def classes_(self) -> Array:
        """The labels 0 .. C - 1."""
        return np.arange(max(2, len(self.intercept)))

    def kernel(self, X: Array) -> Array:
        """K(x, s_i), [n, m]; the methods below take it where the caller has it already."""
        exponents = self._exponents(X)
        return np.exp(exponents, out=exponents)

    def values(self, X: Array, kernel: Array | None = None) -> Array:
        """f [n, C]."""
        kernel = self.kernel(X) if kernel is None else kernel
        return np.asarray(kernel @ self.coefficients.T + self.intercept)

    def rounding(self, X: Array, kernel: Array | None = None) -> Array:
        """How far rounding may move f, [n]: of the exponents and of the sum."""
        kernel = self.kernel(X) if kernel is None else kernel
        centered = X - self.center
        exponent = self.gamma * (np.einsum("nd,nd->n", centered, centered) + self.squares.max())
        size = (kernel @ np.abs(self.coefficients).T).max(axis=1)
        return np.asarray(ROUNDINGS * ((1.0 + exponent) * size + np.abs(self.intercept).max()))

    def gradient(self, X: Array) -> Array:
        """∇f_c(x) = -2γ Σ_i a_ci K_i (x - s_i), [n, C, d]."""
        kernel, g = self.kernel(X), np.empty((len(X), len(self.intercept), X.shape[1]))
        for c, a in enumerate(self.coefficients):
            g[:, c] = self._pull(X, kernel * a)
        return 2.0 * self.gamma * g

    def gradient_of(self, X: Array, a: Array, kernel: Array | None = None) -> Array:
        """∇ Σ_i a_ni K_i with coefficients of each sample's own, a [n, m]; [n, d]."""
        kernel = self.kernel(X) if kernel is None else kernel
        return 2.0 * self.gamma * self._pull(X, kernel * a)

    def log_ratio_gradient_of(self, X: Array, a: Array) -> Array:
        """∇ log(Σ_{a>0} a_i K_i) - ∇ log(Σ_{a<0} |a_i| K_i) over 2γ, a [n, m]; [n, d].

        The two sums as densities: each is an average of s_i - x with weights that add to 1, so it does not vanish where
        the kernel does.
        """
        exponents = self._exponents(X)
        weights = np.zeros_like(exponents)
        for sign in (1.0, -1.0):
            part = np.where(sign * a > 0, exponents, -np.inf)
            part -= np.maximum(part.max(axis=1, keepdims=True), np.finfo(np.float64).min)
            part = np.exp(part) * np.abs(a)
            total = part.sum(axis=1, keepdims=True)
            weights += sign * np.divide(part, total, out=np.zeros_like(part), where=total > 0)
        return self._pull(X, weights)

    def _exponents(self, X: Array) -> Array:
        """-γ ‖x - s_i‖², [n, m]."""
        centered = X - self.center
        exponents = np.empty((len(X), len(self.support)))
        for rows, block in self._blocks():
            exponents[:, rows] = centered @ block.T
        exponents *= -2.0
        exponents += self.squares
        exponents += np.einsum("nd,nd->n", centered, centered)[:, None]
        np.maximum(exponents, 0.0, out=exponents)
        exponents *= -self.gamma
        return exponents

    def _pull(self, X: Array, weights: Array) -> Array:
        """Σ_i w_ni (s_i - x), weights [n, m]; [n, d]."""
        pull = -weights.sum(axis=1, keepdims=True) * (X - self.center)
        for rows, block in self._blocks():
            pull += weights[:, rows] @ block
        return np.asarray(pull)

    def _blocks(self) -> Iterator[tuple[slice, Array]]:
        """Support vectors less their mean, float64: in one piece where that may be kept."""
        m, d = self.support.shape
        if self._kept is None and 8 * m * d <= KEEP_BYTES:
            self._kept = self.support - self.center
        if self._kept is not None:
            yield slice(0, m), self._kept
            return
        step = max(1, KEEP_BYTES // (64 * max(d, 1)))
        for start in range(0, m, step):
            yield slice(start, start + step), self.support[start : start + step] - self.center
