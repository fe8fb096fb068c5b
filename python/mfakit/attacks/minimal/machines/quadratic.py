"""The margin of a machine of RBF kernels from below, on a part of a ball, by one quadratic.

On the part, with η from its middle, every term of e^(γ‖δ‖²) g is a weight times e^z, z = 2γ η·(u_i - c), after division
by the positive function e^(2γ δ·c). For |z| ≤ r it lies above 1 + z + φ(-r) z² and below 1 + z + φ(r) z², because
φ(z) = (e^z - 1 - z)/z² rises. docs/certificates.md has the proof, with what is added for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .expansion import EPS, Expansion

__all__ = ["MARGIN", "Box", "Frame", "Quadratic", "phi"]

Array = NDArray[Any]

# Lengths are larger by this and what is certified smaller: coordinates and edges are rounded.
MARGIN = 1e-10
# φ by its series below this |z|, of so many terms, and what its rounding is below.
SERIES_BELOW, SERIES_TERMS, PHI_ROUNDING = 0.5, 16, 1e-13
# exp of more than this leaves no quadratic.
LARGEST_REACH = 300.0


@dataclass(frozen=True)
class Box:
    """The part of a ball whose last k coordinates lie between `low` and `high`, float64 [k]."""

    low: Array
    high: Array

    @property
    def middle(self) -> Array:
        """[k]."""
        return np.asarray(0.5 * (self.low + self.high))

    @property
    def half(self) -> Array:
        """Half widths [k], larger by MARGIN."""
        return np.asarray(0.5 * (self.high - self.low) * (1.0 + MARGIN))

    @property
    def near(self) -> float:
        """The least length in it, smaller by MARGIN."""
        crosses = (self.low <= 0.0) & (self.high >= 0.0)
        least = np.where(crosses, 0.0, np.minimum(np.abs(self.low), np.abs(self.high)))
        return float(np.linalg.norm(least)) * (1.0 - MARGIN)

    @property
    def far(self) -> float:
        """The largest length in it without what is beside the axes, larger by MARGIN."""
        return float(np.linalg.norm(np.maximum(np.abs(self.low), np.abs(self.high)))) * (1.0 + MARGIN)

    def beside(self, radius: float) -> float:
        """How far points of it in the ball are from the plane of the k axes, at most."""
        outer = (1.0 + MARGIN) * radius
        return float(np.sqrt(max(outer**2 - self.near**2, 0.0))) * (1.0 + MARGIN)

    def halves(self, axis: int) -> tuple[Box, Box]:
        """Cut across an axis."""
        high, low = self.high.copy(), self.low.copy()
        high[axis] = low[axis] = self.middle[axis]
        return Box(self.low, high), Box(low, self.high)


@dataclass(frozen=True)
class Quadratic:
    """g from below, in units of R: constant + linear·η + ηᵀ Q η, with η from the box's middle.

    Attributes
    ----------
    constant : float
    linear : float64 [n]
    quadratic : float64 [n, n]
    middle, half : float64 [k]
        Of the box.
    size : float
        What rounding of all these is relative to.
    weights, rows : float64 [m + 1], [m + 1, n]
        Sizes of the terms, which add to 1, and their exponents.
    """

    constant: float
    linear: Array
    quadratic: Array
    middle: Array
    half: Array
    size: float
    weights: Array
    rows: Array


class Frame:
    """An expansion in coordinates of which the last k are along axes.

    Parameters
    ----------
    f : Expansion
    exponents : float64 [m + 1, n]
        2γ u_i in the coordinates; the constant is a support vector at the sample whose weight depends on the box.
    mirrors : tuple of float64 [n]
        The reflections that led to them, √2 times unit vectors, each followed by a sign of its axis's coordinate.
    """

    def __init__(self, f: Expansion, exponents: Array, mirrors: tuple[tuple[Array, int, float], ...] = ()) -> None:
        self.f, self.exponents, self.mirrors = f, exponents, mirrors
        self.share = np.append(f.share, np.sign(f.constant))

    @classmethod
    def of(cls, f: Expansion) -> Frame:
        """Without an axis."""
        return cls(f, 2.0 * f.gamma * np.vstack([f.to, np.zeros_like(f.to[:1])]))

    @property
    def n_axes(self) -> int:
        """k."""
        return len(self.mirrors)

    def with_axis(self, way: Array) -> Frame:
        """With one more axis, along `way` [n] in these coordinates; what of it is along the axes so far is left out."""
        at = len(way) - 1 - self.n_axes
        way = np.where(np.arange(len(way)) <= at, way, 0.0)
        way = way / np.linalg.norm(way)
        sign = -1.0 if way[at] >= 0.0 else 1.0
        mirror = way.copy()
        mirror[at] -= sign
        mirror *= np.sqrt(2.0) / np.linalg.norm(mirror)
        turned = self.exponents - np.multiply.outer(self.exponents @ mirror, mirror)
        turned[:, at] *= sign
        return Frame(self.f, turned, (*self.mirrors, (mirror, at, sign)))

    def back(self, delta: Array) -> Array:
        """A perturbation [n] of these coordinates in those of the expansion."""
        delta = delta.copy()
        for mirror, at, sign in reversed(self.mirrors):
            delta[at] *= sign
            delta -= (delta @ mirror) * mirror
        return delta

    def below(self, box: Box, radius: float) -> Quadratic | None:
        """The quadratic below g on a box within a ball; None where exponentials overflow."""
        f, k = self.f, self.n_axes
        beside, far = box.beside(radius), (1.0 + MARGIN) * radius
        if k == self.exponents.shape[1]:
            far = min(far, box.far)
        z, logs = self._terms(box, far)
        logs = logs + z[:, -k:] @ box.middle
        top = float(logs.max())
        errors = np.append(f.errors(radius), 64.0 * EPS * (2.0 + 4.0 * f.gamma * radius**2))
        weights = np.exp(logs - top) * (self.share - errors)
        sizes = np.abs(weights)
        total = float(sizes.sum())
        if not (np.isfinite(top) and 0.0 < total < np.inf):
            return None
        weights, sizes = weights / total, sizes / total
        v = z - sizes @ z
        across = np.sqrt(np.einsum("mn,mn->m", v[:, :-k], v[:, :-k]))
        reach = (np.abs(v[:, -k:]) @ box.half + beside * across) * (1.0 + MARGIN)
        if not reach.max() <= LARGEST_REACH:
            return None
        bend = np.where(weights > 0, (1.0 - PHI_ROUNDING) * phi(-reach), (1.0 + PHI_ROUNDING) * phi(reach))
        v = v * radius
        curved = weights * bend
        squares = np.einsum("mn,mn->m", v, v)
        constant, linear, quadratic = float(weights.sum()), weights @ v, _weighted_squares(v, curved)
        middle, every = box.middle / radius, np.arange(v.shape[1])
        # What was left out of the constant's term, of which its own exponential is at least e^-reach.
        share = (1.0 - MARGIN) * float(sizes[-1] * np.exp(-reach[-1]))
        if f.constant > 0:  # e^z (1 + γ‖η‖²) instead of e^z
            share *= f.gamma * radius**2
            quadratic[every, every] += share
        elif f.constant < 0:  # e^(γ‖δ‖²) lies below its chord between the least and the largest ‖δ‖²
            room = far**2 - box.near**2
            share *= -float(np.expm1(-f.gamma * room)) / room * radius**2
            quadratic[every, every] -= share
            linear[-k:] -= 2.0 * share * middle
            constant += share * ((far / radius) ** 2 - float(middle @ middle))
        size = 1.0 + 4.0 * share + float(sizes @ np.sqrt(squares) + np.abs(curved) @ squares)
        return Quadratic(constant, linear, quadratic, middle, box.half / radius, len(v) * size, sizes, v)

    def _terms(self, box: Box, far: float) -> tuple[Array, Array]:
        """Exponents per unit of length [m + 1, n] and logarithms of weights [m + 1] of the terms of e^(γ‖δ‖²) g."""
        f, k, middle = self.f, self.n_axes, box.middle
        if f.constant > 0:  # b e^(γ‖δ‖²) holds: ‖δ‖² lies above its tangent in the middle
            z = self.exponents.copy()
            z[-1, -k:] = 2.0 * f.gamma * middle
            return z, np.append(f.log_size, np.log(f.constant) - f.gamma * float(middle @ middle))
        pulls = np.log(-f.constant) + f.gamma * far**2 if f.constant else -np.inf
        return self.exponents, np.append(f.log_size, pulls)


def _weighted_squares(v: Array, weights: Array) -> Array:
    """Σ_i w_i v_i v_iᵀ [n, n]. A matrix times its own transpose takes half of the multiplications."""
    parts = [np.sqrt(np.abs(weights[side]))[:, None] * v[side] for side in (weights > 0, weights < 0)]
    return np.asarray(parts[0].T @ parts[0] - parts[1].T @ parts[1])


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
