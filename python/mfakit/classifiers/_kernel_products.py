"""Kernel matrices, and kernel expansions f_c(x) = Σ_i a_ci K(x, s_i) + b_c with their gradients, by matrix products.

All float64 and centred: ‖x - s‖² = ‖x - c‖² + ‖s - c‖² - 2 (x - c)·(s - c) is off by some 1e-15 of its two squares,
which far from the origin would be all there is of it. Samples and support vectors keep their own dtype; blocks of them
are converted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays import RowBlocks, check_finite_rows
from .._options import Options
from .._threads import interruptible

__all__ = ["KEEP_BYTES", "RBFMachine", "centered_gram", "data_mean", "squared_distances"]

Array = NDArray[Any]

# Centred float64 support vectors are kept up to this size, and converted block by block at every use beyond it.
KEEP_BYTES = 2**30
# Either side of a tile of the kernel matrix, in float64: every side is converted once per tile, so few large tiles.
TILE_BYTES, TILE_ROWS = 2**28, 4096
# Rounding of a sum of kernel values, in units of the last place: some √m for m support vectors.
ROUNDINGS = 128 * float(np.finfo(np.float64).eps)


def data_mean(rows: RowBlocks, options: Options) -> Array:
    """The mean [d] of all rows, in one pass that refuses NaN and inf and rows that are all the same."""
    n, d = rows.shape
    total, first, same = np.zeros(d), rows.block(0, 1)[0].copy(), True
    step = options.plan_block(d, 1, 8)
    for start in range(0, n, step):
        block = rows.block(start, min(start + step, n))
        check_finite_rows(block.sum(axis=1, dtype=np.float64), block, start, rows.name)
        total += block.sum(axis=0, dtype=np.float64)
        same = same and bool((block == first).all())
    if n > 1 and same:
        raise ValueError(
            f"all {n} rows of {rows.name} are equal, so nothing tells the classes apart; check {rows.name}"
        )
    return total / n


def centered_gram(rows: RowBlocks, center: Array, options: Options) -> Array:
    """Inner products [n, n] of the rows less `center` [d], a tile at a time."""
    n, d = rows.shape
    _check_memory(n)
    gram = np.empty((n, n))
    step = options.block_rows or max(16, min(TILE_ROWS, TILE_BYTES // (8 * d)))
    step = -(-n // -(-n // step))  # of equal height
    buffers = [np.empty((step, d)) for _ in range(1 if step == n else 2)]

    def centered(start: int, buffer: Array) -> Array:
        block = rows.block(start, min(start + step, n))
        result: Array = np.subtract(block, center, out=buffer[: len(block)])
        return result

    for start in range(0, n, step):
        side = centered(start, buffers[0])
        for first in range(0, start + 1, step):
            other = side if first == start else centered(first, buffers[1])
            tile = gram[start : start + len(side), first : first + len(other)]
            interruptible(_product, side, other.T, tile)
            if first != start:
                gram[first : first + len(other), start : start + len(side)] = tile.T
    if not np.isfinite(np.diagonal(gram)).all():
        raise ValueError(f"{rows.name} is too large for squared lengths in float64; scale {rows.name} down")
    return gram


def _product(A: Array, B: Array, out: Array) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # a thread has its own; what overflows is refused at the end
        np.matmul(A, B, out=out)


def squared_distances(gram: Array, center: Array) -> tuple[Array, float]:
    """‖x_i - x_j‖² [n, n] in place of the inner products about `center` [d]; and Σ (x - the mean of all entries)²."""
    squares = np.diagonal(gram).copy()
    for start in range(0, len(gram), 256):
        part = gram[start : start + 256]
        part *= -2.0
        part += squares
        part += squares[start : start + 256, None]
        np.maximum(part, 0.0, out=part)
    np.fill_diagonal(gram, 0.0)
    return gram, float(squares.sum() + len(gram) * ((center - center.mean()) ** 2).sum())


def _check_memory(n: int) -> None:
    """An [n, n] array beyond the machine's memory is refused here: systems that overcommit would kill the process."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return
    if 8 * n * n > total:
        raise MemoryError(
            f"the kernel matrix of {n} samples takes {8 * n * n / 2**30:.0f} GiB, and this machine has "
            f"{total / 2**30:.0f}; train on fewer samples"
        )


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
        for rows, block in self._blocks():
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
