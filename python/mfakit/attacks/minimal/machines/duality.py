"""Whether a quadratic is positive on a box within the unit ball, by weak duality.

It is if for some λ, μ_j ≥ 0

    quadratic + λ (‖δ‖² - 1) + Σ_j μ_j (τ_j² - half_j²) > 0    for all δ, τ its coordinates on the axes from the middle,

that is if one matrix is positive definite. A Cholesky factorization that succeeds proves it, rounding included.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack

from .expansion import EPS
from .quadratic import Quadratic

__all__ = ["Answer", "is_positive_within"]

Array = NDArray[Any]

# Values of λ tried, and their relative distance below which another is not: as long as the smallest is one that is too
# small, the best may be just above it.
MULTIPLIERS, CLOSE, NEARLY = 16, 0.02, 1e-12


class Answer(NamedTuple):
    """Whether the quadratic is `proved` to be positive, a `multiplier` λ that suited, and else the `worst` δ [n], in
    units of R, at which its bound is lowest; None if there was none.
    """

    proved: bool
    multiplier: float
    worst: Array | None


def is_positive_within(q: Quadratic, multiplier: float | None) -> Answer:
    """Search for multipliers that prove it, beginning with a λ that suited another part."""
    best, worst, ascent = -np.inf, None, _Ascent()
    at = abs(float(q.linear[-1])) / 2.0 if multiplier is None else multiplier
    first = at
    for _ in range(MULTIPLIERS):
        found = _lowest(q, at)
        if found is None:  # not yet convex across the axes
            ascent.too_small(at)
        else:
            # A part of what is left over makes the matrix definite where it would be singular.
            spare = max(found.value, 0.0) / (4.0 * len(q.half) * q.half**2)
            if found.value > 0.0 and _is_definite(q, at, found.pressures + spare):
                return Answer(True, at, None)
            if found.value > best:
                best, worst = found.value, found.point
            ascent.saw(at, found.value, found.slope)
        at, most = ascent.next()
        if most <= 0.0 or ascent.is_closed:
            break
    return Answer(False, first, worst)


class _Lowest(NamedTuple):
    """The lowest `value` at a λ, its derivative in λ, the minimiser [n] and the μ [k] that belong to it."""

    value: float
    slope: float
    point: Array
    pressures: Array


def _lowest(q: Quadratic, multiplier: float) -> _Lowest | None:
    """The minimum of the quadratic plus λ (‖δ‖² - 1) over the box and all that is across it; None where it is not
    bounded below.
    """
    Q, k, n = q.quadratic, len(q.half), len(q.linear) - len(q.half)
    sides = np.column_stack([Q[:n, n:], 0.5 * q.linear[:n]])
    solved = sides
    if n:
        across = np.array(Q[:n, :n], order="F")
        across[np.arange(n), np.arange(n)] += multiplier
        try:
            factor = cho_factor(across, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            return None
        solved = cho_solve(factor, sides, check_finite=False)
    taken = sides.T @ solved
    A = Q[n:, n:] + multiplier * np.eye(k) - taken[:k, :k]
    B = q.linear[n:] + 2.0 * multiplier * q.middle - 2.0 * taken[:k, k]
    C = q.constant + multiplier * (float(q.middle @ q.middle) - 1.0) - float(taken[k, k])
    value, tau = _least_in_box(A, B, q.half)
    point = np.append(-(solved[:, :k] @ tau + solved[:, k]), q.middle + tau)
    return _Lowest(value + C, float(point @ point) - 1.0, point, _pressures(A, B, q.half, tau))


def _least_in_box(A: Array, B: Array, half: Array) -> tuple[float, Array]:
    """The minimum of τᵀ A τ + B·τ over |τ_j| ≤ half_j, for one or two axes, and where it is."""
    if len(half) == 1:
        return _least_between(float(A[0, 0]), float(B[0]), float(half[0]), 0.0)
    found = []
    for j, end in ((0, -half[0]), (0, half[0]), (1, -half[1]), (1, half[1])):
        i = 1 - j
        value, other = _least_between(
            float(A[i, i]), float(B[i] + 2.0 * A[i, j] * end), float(half[i]), float(A[j, j] * end**2 + B[j] * end)
        )
        found.append((value, np.array([end, other[0]] if j == 0 else [other[0], end])))
    determinant = A[0, 0] * A[1, 1] - A[0, 1] ** 2
    if A[0, 0] > 0.0 and determinant > 0.0:
        inside = np.array([A[0, 1] * B[1] - A[1, 1] * B[0], A[0, 1] * B[0] - A[0, 0] * B[1]]) / (2.0 * determinant)
        if (np.abs(inside) < half).all():
            found.append((float(0.5 * B @ inside), inside))
    return min(found, key=lambda pair: pair[0])


def _least_between(a: float, b: float, half: float, c: float) -> tuple[float, Array]:
    """The minimum of a τ² + b τ + c over |τ| ≤ half, and τ [1]."""
    at = [-half, half]
    if a > 0.0 and abs(b) < 2.0 * a * half:
        at.append(-b / (2.0 * a))
    value, tau = min((a * t * t + b * t + c, t) for t in at)
    return value, np.array([tau])


def _pressures(A: Array, B: Array, half: Array, tau: Array) -> Array:
    """μ [k] with which τ is stationary where it is on the box's edge, raised until A + diag(μ) is not indefinite."""
    at_edge = np.abs(tau) >= half
    pull = -(2.0 * A @ tau + B)
    mu = np.where(at_edge, np.maximum(pull / np.where(at_edge, 2.0 * tau, 1.0), 0.0), 0.0)
    lowest = float(np.linalg.eigvalsh(A + np.diag(mu))[0])
    return np.asarray(mu + max(0.0, -1.0001 * lowest))


def _is_definite(q: Quadratic, multiplier: float, mu: Array) -> bool:
    """Whether the quadratic with λ and μ is positive for all δ. Cholesky's algorithm ends on the matrix less a shift
    only if the matrix is positive definite (Rump 2006).
    """
    n, k = len(q.linear), len(mu)
    M = np.empty((n + 1, n + 1), order="F")
    M[:n, :n] = q.quadratic
    M[np.arange(n), np.arange(n)] += multiplier
    M[np.arange(n - k, n), np.arange(n - k, n)] += mu
    M[n, :n] = 0.5 * q.linear
    M[n, n - k : n] += multiplier * q.middle
    M[:n, n] = M[n, :n]
    M[n, n] = q.constant + multiplier * (float(q.middle @ q.middle) - 1.0) - float(mu @ q.half**2)
    trace = float(np.abs(np.diagonal(M)).sum())
    shift = EPS * (8.0 * (n + 4) * trace + 8.0 * q.size + 64.0 * (multiplier + float(mu.sum()) + 1.0))
    M[np.arange(n + 1), np.arange(n + 1)] -= shift
    return bool(lapack.dpotrf(M, lower=1, clean=0, overwrite_a=1)[1] == 0)


class _Ascent:
    """The search for a λ at which a concave function is positive, by its tangents."""

    def __init__(self) -> None:
        self.least, self.largest = 0.0, np.inf
        self.rising: tuple[float, float] | None = None  # value and slope at `least`, if it is known there
        self.falling: tuple[float, float] | None = None

    def too_small(self, at: float) -> None:
        """The function is -∞ at a λ, which is too small."""
        self.least, self.rising = max(self.least, at), None

    def saw(self, at: float, value: float, slope: float) -> None:
        """The value and the derivative at a λ."""
        if slope > 0.0:
            self.least, self.rising = at, (value, slope)
        else:
            self.largest, self.falling = at, (value, slope)

    @property
    def is_closed(self) -> bool:
        """Whether the λ left differ by little."""
        close = CLOSE if self.rising is not None else NEARLY
        return self.largest < np.inf and self.largest - self.least <= close * self.largest

    def next(self) -> tuple[float, float]:
        """The next λ, and a value that the function does not exceed."""
        low, high = self.least, self.largest
        if high == np.inf:
            return 4.0 * low if low > 0.0 else 1.0, np.inf
        if self.rising is None or self.falling is None:
            return low + 0.1 * (high - low), np.inf
        (left, up), (right, down) = self.rising, self.falling
        at = (right - left + up * low - down * high) / (up - down)
        inside = 0.1 * (high - low)
        return float(min(max(at, low + inside), high - inside)), left + up * (at - low)
