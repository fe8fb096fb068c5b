"""Proof that no perturbation of length up to R flips a machine of RBF kernels, region by region.

The ball is cut in slices across an axis. On a slice, g times a positive function is at least a quadratic: with η from
the slice's middle and z = 2γ η·(u_i - c), e^z lies above 1 + z + φ(-r_i) z² and below 1 + z + φ(r_i) z² for |z| ≤ r_i,
where φ(z) = (e^z - 1 - z)/z² rises. By weak duality the quadratic is positive on the slice if for some λ, μ ≥ 0

    quadratic + λ (‖δ‖² - R²) + μ (τ² - half²) > 0    for all δ, τ its coordinate on the axis from the middle,

that is if one matrix is positive definite, which a Cholesky factorization that succeeds proves with rounding included.
docs/certificates.md has the whole proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack

from .expansion import EPS, Expansion

__all__ = ["Ball", "Certified"]

Array = NDArray[Any]

# Lengths are larger by this and what is certified smaller: coordinates and edges are rounded.
MARGIN = 1e-10
# φ by its series below this |z|, of so many terms, and what its rounding is below.
SERIES_BELOW, SERIES_TERMS, PHI_ROUNDING = 0.5, 16, 1e-13
# exp of more than this leaves no quadratic.
LARGEST_REACH = 300.0
# Edges of the slices to begin with, in units of the radius.
EDGES = (-1.0, -0.3, 0.3, 0.7, 0.9, 1.0)
# A slice that is narrower than this share of the radius, and than twice the gap, is not cut; and how many are examined.
NARROWEST, MOST_SLICES = 1.0 / 64.0, 60
# Values of λ tried, and their relative distance below which another is not.
MULTIPLIERS, CLOSE = 14, 0.02
# The first gap that is tried, the factor by which it then grows up to a half, and the share of the length down to which
# the radius halves after that.
FIRST_GAP, WIDER, LEAST_SHARE = 2e-4, 1.6, 1e-9
# A flip that a slice runs into is worth a new search if it is shorter than the best one by this share.
SHORTER = 1e-6


@dataclass(frozen=True)
class Certified:
    """What was proved: no flip within `radius`. `shorter` is a flip [n] below the length that was known, and then
    nothing was proved yet. `examined` counts slices.
    """

    radius: float
    shorter: Array | None
    examined: int


@dataclass(frozen=True)
class Slice:
    """g from below on a slice, in units of R: constant + linear·η + ηᵀ Q η, the axis last."""

    constant: float
    linear: Array
    quadratic: Array
    middle: float
    half: float
    size: float


class Ball:
    """An expansion with an axis [n] along which the ball is cut."""

    def __init__(self, f: Expansion, axis: Array) -> None:
        self.f = f
        # A reflection that takes the axis to the last coordinate.
        axis = axis / np.linalg.norm(axis)
        mirror = axis.copy()
        mirror[-1] += 1.0 if axis[-1] >= 0 else -1.0
        self.mirror = mirror * (np.sqrt(2.0) / np.linalg.norm(mirror))
        self.flipped = -1.0 if axis[-1] >= 0 else 1.0
        to = self._reflected(f.to)
        # The constant is a support vector at the sample whose weight depends on the slice.
        self.exponents = 2.0 * f.gamma * np.vstack([to, np.zeros_like(to[:1])])
        self.sign = np.append(f.sign, np.sign(f.constant))

    def certify(self, length: float, stops: bool = True) -> Certified:
        """The largest radius below a flip's `length` that is proved, found by ever shorter ones; `stops`: return the
        first shorter flip that a slice runs into.
        """
        gap, radius, multiplier, examined, cuts = FIRST_GAP, (1.0 - FIRST_GAP) * length, None, 0, 0
        open_slices = [(a * length, b * length) for a, b in pairwise(EDGES)]
        while open_slices:
            low, high = open_slices.pop()
            low, high = max(low, -radius), min(high, radius)
            if low >= high:
                continue
            examined += 1
            proved, multiplier, worst = self._examine(low, high, radius, multiplier)
            if proved:
                continue
            if stops and worst is not None and self._is_shorter(worst, length):
                return Certified(0.0, worst, examined)
            if cuts < MOST_SLICES and high - low > max(NARROWEST, 2.0 * gap) * length:
                cuts += 1
                middle = 0.5 * (low + high)
                open_slices += [(low, middle), (middle, high)]
                continue
            gap = WIDER * gap
            radius = (1.0 - gap) * length if gap <= 0.5 else 0.5 * radius
            if radius < LEAST_SHARE * length:
                return Certified(0.0, None, examined)
            open_slices.append((low, high))
        return Certified((1.0 - MARGIN) * radius, None, examined)

    def _is_shorter(self, delta: Array, length: float) -> bool:
        return bool(np.linalg.norm(delta) < (1.0 - SHORTER) * length and self.f.log_ratio(delta)[0] <= 0.0)

    def _examine(
        self, low: float, high: float, radius: float, multiplier: float | None
    ) -> tuple[bool, float | None, Array | None]:
        """Whether a slice is proved, a multiplier that suited it, and else the δ [n] where its bound is lowest."""
        part = self._slice(low, high, radius)
        if part is None:
            return False, multiplier, None
        best, worst, ascent = -np.inf, None, Ascent()
        at = abs(float(part.linear[-1])) / 2.0 if multiplier is None else multiplier
        for _ in range(MULTIPLIERS):
            found = _lowest(part, at)
            if found is None:  # not yet convex across the axis
                ascent.too_small(at)
            else:
                value, curvature, slope, point = found
                if value > 0.0 and _is_positive(part, at, curvature):
                    return True, at, None
                if value > best:
                    best, worst = value, point
                ascent.saw(at, value, slope)
            at, most = ascent.next()
            if most <= 0.0 or ascent.is_closed:
                break
        return False, multiplier, None if worst is None else radius * self._turned_back(worst)

    def _slice(self, low: float, high: float, radius: float) -> Slice | None:
        """The quadratic below g on a slice; None where exponentials overflow."""
        f, large = self.f, (1.0 + MARGIN)
        middle, half = 0.5 * (low + high), 0.5 * (high - low) * large
        near = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high)) / large
        outer = large * radius
        beside = np.sqrt(outer**2 - near**2) * large
        z = self.exponents.copy()
        logs = np.append(f.log_weight, -np.inf)
        if f.constant > 0:  # b e^(γ‖δ‖²) holds: ‖δ‖² lies above its tangent and the square of η
            z[-1, -1] = 2.0 * f.gamma * middle
            logs[-1] = np.log(f.constant) - f.gamma * middle**2
        elif f.constant < 0:  # it pulls: ‖δ‖² is at most R²
            logs[-1] = np.log(-f.constant) + f.gamma * outer**2
        logs = logs + middle * z[:, -1]
        top = float(logs.max())
        errors = np.append(f.errors(radius), 64.0 * EPS * (2.0 + 4.0 * f.gamma * outer**2))
        weights = np.exp(logs - top) * (self.sign - errors)
        sizes = np.abs(weights)
        total = float(sizes.sum())
        if not (np.isfinite(top) and np.isfinite(total) and total > 0.0):
            return None
        weights, sizes = weights / total, sizes / total
        v = z - sizes @ z
        across = np.sqrt(np.einsum("mn,mn->m", v[:, :-1], v[:, :-1]))
        reach = (half * np.abs(v[:, -1]) + beside * across) * large
        if not reach.max() <= LARGEST_REACH:
            return None
        bend = np.where(weights > 0, (1.0 - PHI_ROUNDING) * phi(-reach), (1.0 + PHI_ROUNDING) * phi(reach))
        v = v * radius
        curved = weights * bend
        length2 = np.einsum("mn,mn->m", v, v)
        constant, linear, quadratic = float(weights.sum()), weights @ v, (v.T * curved) @ v
        every = np.arange(len(linear))
        # What was left out of the constant's term, of which its own exponential is at least e^-reach.
        share = (1.0 - MARGIN) * sizes[-1] * float(np.exp(-reach[-1]))
        if f.constant > 0:  # e^z (1 + γ‖η‖²) instead of e^z
            quadratic[every, every] += share * f.gamma * radius**2
        elif f.constant < 0:  # e^(γ‖δ‖²) lies below its chord between the least ‖δ‖² and R²
            room = 1.0 - (near / outer) ** 2
            share *= -float(np.expm1(-f.gamma * outer**2 * room)) / room
            quadratic[every, every] -= share
            linear[-1] -= 2.0 * share * middle / radius
            constant += share * (1.0 - (middle / radius) ** 2)
        size = 1.0 + 4.0 * share + float(sizes @ np.sqrt(length2) + np.abs(curved) @ length2)
        return Slice(constant, linear, quadratic, middle / radius, half / radius, len(v) * size)

    def _reflected(self, rows: Array) -> Array:
        turned = rows - np.multiply.outer(rows @ self.mirror, self.mirror)
        turned[..., -1] *= self.flipped
        return np.asarray(turned)

    def _turned_back(self, delta: Array) -> Array:
        delta = delta.copy()
        delta[-1] *= self.flipped
        return np.asarray(delta - (delta @ self.mirror) * self.mirror)


def phi(z: Array) -> Array:
    """(e^z - 1 - z)/z², which rises in z; 1/2 at 0."""
    series, term = np.zeros_like(z), np.full_like(z, 0.5)
    small = np.abs(z) < SERIES_BELOW
    near = np.where(small, z, 0.0)
    for k in range(SERIES_TERMS):
        series += term
        term = term * near / (k + 3.0)
    far = np.where(small, 1.0, z)
    return np.where(small, series, (np.expm1(far) - far) / far**2)


class Ascent:
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
        return self.largest < np.inf and self.largest - self.least <= CLOSE * self.largest

    def next(self) -> tuple[float, float]:
        """The next λ, and a value that the function does not exceed."""
        low, high = self.least, self.largest
        if high == np.inf:
            return 4.0 * low if low > 0.0 else 1.0, np.inf
        if self.rising is None or self.falling is None:
            return float(np.sqrt(max(low, 1e-3 * high) * high)), np.inf
        (left, up), (right, down) = self.rising, self.falling
        at = (right - left + up * low - down * high) / (up - down)
        inside = 0.1 * (high - low)
        return float(min(max(at, low + inside), high - inside)), left + up * (at - low)


def _lowest(part: Slice, multiplier: float) -> tuple[float, float, float, Array] | None:
    """The minimum of the quadratic plus λ (‖δ‖² - 1) over |τ| ≤ half and all that is across the axis, μ for it, the
    value's derivative in λ, and the minimiser δ [n]; None where it is not bounded below.
    """
    Q, n = part.quadratic, len(part.linear) - 1
    if n:
        across = np.array(Q[:n, :n], order="F")
        across[np.arange(n), np.arange(n)] += multiplier
        try:
            factor = cho_factor(across, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            return None
        sides = np.column_stack([Q[:n, n], 0.5 * part.linear[:n]])
        solved = cho_solve(factor, sides, check_finite=False)
    else:
        sides = solved = np.zeros((0, 2))
    taken = sides.T @ solved
    # A τ² + B τ + C
    A = Q[n, n] + multiplier - taken[0, 0]
    B = part.linear[n] + 2.0 * multiplier * part.middle - 2.0 * taken[0, 1]
    C = part.constant + multiplier * (part.middle**2 - 1.0) - taken[1, 1]
    ends = [-part.half, part.half]
    if A > 0.0 and abs(B) < 2.0 * A * part.half:
        ends.append(-B / (2.0 * A))
    value, tau = min((A * t * t + B * t + C, t) for t in ends)
    point = np.append(-(tau * solved[:, 0] + solved[:, 1]), part.middle + tau)
    curvature = max(0.0, abs(B) / (2.0 * part.half) - A)
    return float(value), float(curvature), float(point @ point) - 1.0, point


def _is_positive(part: Slice, multiplier: float, curvature: float) -> bool:
    """Whether quadratic + λ (‖δ‖² - 1) + μ (τ² - half²) is positive for all δ, rounding included: Cholesky's algorithm
    ends on the matrix less a shift only if the matrix is positive definite (Rump 2006).
    """
    n = len(part.linear)
    M = np.empty((n + 1, n + 1), order="F")
    M[:n, :n] = part.quadratic
    M[np.arange(n), np.arange(n)] += multiplier
    M[n - 1, n - 1] += curvature
    M[n, :n] = 0.5 * part.linear
    M[n, n - 1] += multiplier * part.middle
    M[:n, n] = M[n, :n]
    M[n, n] = part.constant + multiplier * (part.middle**2 - 1.0) - curvature * part.half**2
    trace = float(np.abs(np.diagonal(M)).sum())
    shift = EPS * (8.0 * (n + 4) * trace + 8.0 * part.size + 64.0 * (multiplier + curvature + 1.0))
    M[np.arange(n + 1), np.arange(n + 1)] -= shift
    return bool(lapack.dpotrf(M, lower=1, clean=0, overwrite_a=1)[1] == 0)
