"""The margin of a machine of RBF kernels around a sample, in coordinates of the span of its support vectors.

With u_i = s_i - x, the margin of the true class over another one at x + δ is

    g(δ) = Σ_i a_i exp(-γ‖u_i - δ‖²) + b = e^(-γ‖δ‖²) (Σ_i c_i e^(2γ δ·u_i) + b e^(γ‖δ‖²)),    c_i = a_i e^(-γ‖u_i‖²),

so that only the inner products δ·u_i and ‖δ‖ matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....classifiers.svm.kernel_machine import ROUNDINGS, RBFMachine

__all__ = ["Expansion", "Span"]

Array = NDArray[Any]

EPS = float(np.finfo(np.float64).eps)
# A coordinate may be off by this many roundings of the vectors' lengths: of products with the basis, and of rotations.
COORDINATE_ROUNDINGS = 64.0 * EPS
# A sample that is nearer to the span than this share of its length has no coordinate beside it: what it is off by is
# an error of its coordinates.
BESIDE = 1e-8


@dataclass(frozen=True, eq=False)
class Expansion:
    """g around one sample; n coordinates of the perturbation.

    Attributes
    ----------
    to : float64 [m, n]
        u_i, for the support vectors that have a coefficient.
    share : float64 [m]
        a_i over the size s_i of its parts, which round: above 0 it holds the sample in its class, below 0 it pulls.
    log_size : float64 [m]
        log s_i - γ‖u_i‖², so that c_i = share · exp(log_size).
    constant, gamma : float
        b, less what it may be rounded by, and γ.
    off : float64 [m]
        How far `to` may be from the exact u_i.
    size : float
        γ times the largest square that rounds in an exponent of the machine itself at the sample.
    frame : (float64 [k, d] or None, float64 [d] or None)
        Orthonormal rows of the coordinates, and the one beside them; None are the d features, and none.
    """

    to: Array
    share: Array
    log_size: Array
    constant: float
    gamma: float
    off: Array
    size: float
    frame: tuple[Array | None, Array | None]

    def errors(self, radius: float) -> Array:
        """By what share each term of g may be off, [m], at ‖δ‖ ≤ radius: by rounding of the coordinates, and by that of
        the machine itself, whose computed decisions are covered too.
        """
        length = np.sqrt(np.einsum("mn,mn->m", self.to, self.to))
        exponent = self.gamma * (2.0 * length + self.off + 2.0 * radius) * self.off
        reach = np.sqrt(self.gamma) * radius
        machine = ROUNDINGS * (2.0 + (np.sqrt(self.size) + reach) ** 2 + self.gamma * (length + radius) ** 2)
        return np.asarray(np.expm1(2.0 * (exponent + machine)))

    def log_ratio(self, delta: Array) -> tuple[float, Array]:
        """L = log of what holds over what pulls at δ [n], and ∇L [n]; the sample is right where L > 0."""
        with np.errstate(divide="ignore"):
            logs = self.log_size + np.log(np.abs(self.share)) + 2.0 * self.gamma * (self.to @ delta)
        square = self.gamma * float(delta @ delta) + (np.log(abs(self.constant)) if self.constant else -np.inf)
        value, gradient = 0.0, np.zeros_like(delta)
        for sign in (1.0, -1.0):
            part = np.where(sign * self.share > 0, logs, -np.inf)
            own = square if sign * self.constant > 0 else -np.inf
            top = max(float(part.max(initial=-np.inf)), own)
            if top == -np.inf:
                return -sign * np.inf, gradient
            weights, constant = np.exp(part - top), np.exp(own - top)
            total = float(weights.sum()) + constant
            value += sign * (top + np.log(total))
            gradient += sign * 2.0 * self.gamma * (weights @ self.to + constant * delta) / total
        return float(value), gradient

    def displacement(self, delta: Array) -> Array:
        """δ in the d features."""
        rows, beside = self.frame
        if rows is None:
            return delta
        inside = delta[: len(rows)] @ rows
        return inside if beside is None else inside + delta[-1] * beside

    def coordinates(self, displacement: Array) -> Array:
        """The coordinates [n] of a displacement [d], without what it has beside them."""
        rows, beside = self.frame
        if rows is None:
            return displacement
        inside = rows @ displacement
        return inside if beside is None else np.append(inside, beside @ displacement)


class Span:
    """Orthonormal rows that span a machine's support vectors, made once; the d features where those are fewer."""

    def __init__(self, machine: RBFMachine) -> None:
        self.machine, self.center = machine, machine.center
        support = machine.support.astype(np.float64) - self.center
        m, d = support.shape
        self.rows: Array | None = np.linalg.qr(support.T)[0].T if m < d else None
        self.support = support if self.rows is None else support @ self.rows.T
        lengths = np.sqrt(machine.squares)
        self.off = COORDINATE_ROUNDINGS * (lengths + EPS * np.linalg.norm(self.center))
        if self.rows is not None:
            self.off += np.linalg.norm(support - self.support @ self.rows, axis=1)

    def expansion(self, x: Array, y: int, other: int) -> Expansion:
        """The margin of class y over another one around a sample x [d]."""
        machine = self.machine
        a, b = machine.coefficients, machine.intercept
        if len(a) == 1:
            own, theirs = (a[0], 0.0 * a[0]) if y == 1 else (0.0 * a[0], a[0])
            constant = float(b[0] if y == 1 else -b[0])
        else:
            own, theirs, constant = a[y], a[other], float(b[y] - b[other])
        parts = np.abs(own) + np.abs(theirs)
        kept = np.flatnonzero(parts)
        parts, coefficients = parts[kept], (own - theirs)[kept]
        to, off, beside = self._seen_from(x, kept)
        squares = np.einsum("mn,mn->m", to, to)
        centered = x - self.center
        size = machine.gamma * float(centered @ centered + machine.squares.max())
        return Expansion(
            to, coefficients / parts, np.log(parts) - machine.gamma * squares,
            constant - 4.0 * ROUNDINGS * float(np.abs(b).max()), machine.gamma, off, size, (self.rows, beside),
        )  # fmt: skip

    def _seen_from(self, x: Array, kept: Array) -> tuple[Array, Array, Array | None]:
        """u_i [m, n], how far each may be off [m], and the unit vector [d] from the span to x, if there is one."""
        centered = x - self.center
        length = float(np.linalg.norm(centered))
        off = self.off[kept] + COORDINATE_ROUNDINGS * length
        if self.rows is None:
            return self.support[kept] - centered, off, None
        inside = self.rows @ centered
        beside = centered - inside @ self.rows
        beside -= (self.rows @ beside) @ self.rows  # twice is enough
        distance = float(np.linalg.norm(beside))
        to = self.support[kept] - inside
        if distance <= BESIDE * length:
            return to, off + distance, None
        return np.column_stack([to, np.full(len(to), -distance)]), off, beside / distance
