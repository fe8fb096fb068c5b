"""The Lagrangian of the nearest flip, for any noise: min ½‖δ‖² such that log p_T ≥ log Σ_i p_{s_i} at x + δ.

With θ on the simplex and entropy H(θ) = -Σ θ log θ, Gibbs' inequality says log Σ p_{s_i} ≥ Σ θ_i log p_{s_i} + H(θ). On
the other side stands log p_t + c_t for a lower bound, or Σ_t φ_t log p_t + H(φ) ≤ log p_T for a point. Write q_i(δ) =
Σ_t φ_t log p_t + offset - log p_{s_i}. For λ_i = Λ θ_i ≥ 0,

    D(λ) = -Σ λ_i q_i(0) + Λ H(θ) - ½ bᵀ P⁻¹ b,   b = Σ λ_i ∇q_i(0),   P = I + Λ Σ_t φ_t A_t - Σ_i λ_i A_{s_i},

is concave where P is positive definite, and there it is at most ½‖δ‖² for every δ with Σ_t φ_t log p_t + offset ≥
log Σ_i p_{s_i}: any such λ proves a bound. A_j = D_j⁻¹ - W_jᵀ W_j makes P a diagonal plus few rows,
P = diag(e) + Vᵀ diag(±1) V. Whether it is definite follows from counting signs (Haynsworth): the inertia of
[[diag e, Vᵀ], [V, ∓1]] by either of its blocks gives

    P ≻ 0   exactly if   n₋(e) + n₊(diag(±1) + V diag(e)⁻¹ Vᵀ) = number of + rows,

which also holds where entries of e are negative, because the loadings of a source may compensate for that. Woodbury's
identity solves with P. Every count allows for the rounding of what it counts; in doubt P counts as indefinite.

The error of the log-densities by rounding at any δ (:mod:`mfakit.attacks.rounding`) is part of the q_i: a constant in
q_i(0), a share of m² that scales A_j and ∇ log p_j, and a multiple of D⁻¹ in the Hessian. These q_i are above the exact
ones everywhere, so a bound for them holds for the exact ones. The multiple of D⁻¹ also covers the rounding of P's
entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..rounding import ROUNDING
from .components import Array, log_sum_exp
from .sample import SHIFT, Sample

__all__ = ["Curvature", "Dual", "FreeCurvature", "Lagrangian", "entropy", "responsibilities"]

EPS = float(np.finfo(np.float64).eps)
# Relative margin for all roundings after those of the log-densities.
BOUND_MARGIN = 1e-10
# An entry of e that cancels to less than this share is shifted away from 0 and corrected by a row of its own, and at
# most how many entries may be.
CANCELLED, MOST_SHIFTED = 1e-4, 32


class Quadratic(NamedTuple):
    """P = diag(e) + Vᵀ diag(sign) V as it is stored: `e` [d] is a sum whose terms add up to `terms` [d] in absolute
    value; V [r, d], sign [r] of ±1.
    """

    e: Array
    terms: Array
    V: Array
    sign: Array

    def apply(self, x: Array) -> Array:
        """P x, for x [..., d]."""
        return np.asarray(self.e * x + (self.sign * (x @ self.V.T)) @ self.V)

    def factor(self) -> Curvature | None:
        """Its factors, or None if it is not positive definite beyond rounding."""
        return Curvature.factor(*self)

    def on(self, free: Array) -> FreeCurvature | None:
        """The factors of P between some of the coordinates, bool [d]."""
        inner = Curvature.factor(self.e[free], self.terms[free], self.V[:, free], self.sign)
        return None if inner is None else FreeCurvature(inner, free)

    def plus(self, diagonal: Array) -> Quadratic:
        """P + diag(diagonal)."""
        return Quadratic(self.e + diagonal, self.terms + np.abs(diagonal), self.V, self.sign)


class Curvature:
    """P = diag(e) + Vᵀ diag(sign) V, known to be positive definite."""

    def __init__(self, e: Array, V: Array, sign: Array, shifted: Array, rows: Array, values: Array, Q: Array) -> None:
        self._e, self._V, self._sign = e, V, sign
        self._shifted, self._scaled, self._values, self._Q = shifted, rows / shifted, values, Q

    @classmethod
    def factor(cls, e: Array, terms: Array, V: Array, sign: Array) -> Curvature | None:
        """Factor P, or None if it is not positive definite beyond rounding.

        `e` [d] is a sum whose terms add up to `terms` [d] in absolute value; V [r, d], sign [r] of ±1.
        """
        shifted, rows, signs = e, V, sign
        small = np.flatnonzero(np.abs(e) < CANCELLED * terms)
        if 0 < len(small) <= MOST_SHIFTED:
            shifted = e.copy()
            shifted[small] += terms[small]
            unit = np.zeros((len(small), len(e)))
            unit[np.arange(len(small)), small] = np.sqrt(terms[small])
            rows, signs = np.concatenate([V, unit]), np.append(sign, -np.ones(len(small)))
        size = np.abs(shifted)
        if (size <= 8.0 * EPS * terms).any():
            return None
        T = (rows / shifted) @ rows.T
        T[np.diag_indices(len(T))] += signs
        if not np.isfinite(T).all():
            return None
        values, Q = np.linalg.eigh(T) if len(T) else (np.empty(0), T)
        if not ((shifted > 0.0).all() and (signs > 0.0).all()):  # else P ≻ 0 whatever the rounding
            spread = np.einsum("rd,rd->d", rows, rows) / size
            doubt = 8.0 * EPS * (len(T) + float((spread * (1.0 + terms / size)).sum()))
            count = int((shifted < 0.0).sum()) + int((values > 0.0).sum())
            if (np.abs(values) <= doubt).any() or count != int((signs > 0.0).sum()):
                return None
        return cls(e, V, sign, shifted, rows, values, Q)

    def apply(self, x: Array) -> Array:
        """P x, for x [..., d]."""
        return np.asarray(self._e * x + (self._sign * (x @ self._V.T)) @ self._V)

    def solve(self, b: Array) -> tuple[Array, Array]:
        """x with P x = b after one step of iterative refinement, and the residual b - P x; [..., d]."""
        x = self._woodbury(b)
        x = x + self._woodbury(b - self.apply(x))
        return x, b - self.apply(x)

    def _woodbury(self, b: Array) -> Array:
        inner = ((b @ self._scaled.T) @ self._Q) / self._values
        return np.asarray(b / self._shifted - (inner @ self._Q.T) @ self._scaled)


class FreeCurvature:
    """P between the free ones [d] of the coordinates; the others do not move."""

    def __init__(self, inner: Curvature, free: Array) -> None:
        self._inner, self._free = inner, free

    def solve(self, b: Array) -> tuple[Array, Array]:
        """x that is 0 in the others and has P x = b in the free coordinates, and the residual there; [..., d]."""
        x, left = np.zeros_like(b), np.zeros_like(b)
        x[..., self._free], left[..., self._free] = self._inner.solve(b[..., self._free])
        return x, left


@dataclass
class Dual:
    """The Lagrangian at one λ [m].

    Attributes
    ----------
    value : D(λ).
    delta : [d], its minimiser P⁻¹ b.
    quadratic : bᵀ P⁻¹ b; in a box -2 min ½ δᵀ P δ - bᵀ δ.
    q : [m], q_i(δ) + log θ_i, minus D's gradient; 0 where λ_i is.
    slopes : [m, d], ∇q_i at δ.
    P : in a box between the coordinates that are not at their bounds.
    """

    lam: Array
    value: float
    delta: Array
    quadratic: float
    q: Array
    slopes: Array
    P: Curvature | FreeCurvature


class Lagrangian:
    """One mixed target and m sources at a sample; q0 [m] and b [m, d] of the q_i at δ = 0, errors of q0 added.

    Sources of several classes are for a flip to the target's class, which must beat each of them: Gibbs' inequality
    holds for each class, and θ_i in D is λ_i's share within its class.
    """

    # No δ that is allowed is longer; and the relative gain at which searches may end, if it is not the least.
    farthest, tolerance = np.inf, 0.0

    def __init__(
        self, x: Sample, targets: Sequence[int], phi: Array, offset: float, sources: Sequence[int], safe: bool = True
    ) -> None:
        q = x.components
        self.sample, self.targets, self.sources = x, np.asarray(targets), np.asarray(sources)
        self.phi = phi
        owner = q.owner[self.sources]
        self._same = (owner[:, None] == owner).astype(np.float64)
        constant = len(targets) == len(sources) == 1 and q.same_density(sources[0], targets[0])
        tilt = np.zeros_like(q.tilt) if constant or not safe else 2.0 * q.tilt
        # The targets' densities may be broader than they seem, and the sources' narrower.
        self._targets = phi * np.maximum(1.0 - tilt[self.targets], 0.0)
        self._sources = 1.0 + tilt[self.sources]
        half = 0.5 * x.maha
        log_target = float(phi @ q.log_const[self.targets] - self._targets @ half[self.targets])
        self.q0 = log_target + offset - q.log_const[self.sources] + self._sources * half[self.sources]
        if safe:
            self.q0 += x.rounding[self.sources] + float(phi @ x.rounding[self.targets]) + ROUNDING * abs(offset)
        self.b = self._targets @ x.gradients[self.targets] - self._sources[:, None] * x.gradients[self.sources]
        self._inv_target = self._targets @ q.inv_noise[self.targets]
        self._inv_source = self._sources[:, None] * q.inv_noise[self.sources]
        self._shift = np.zeros_like(self._inv_source)
        if safe and not constant:
            units = SHIFT * (1.0 + tilt)
            self._shift += (phi * units[self.targets]) @ q.inv_noise[self.targets]
            self._shift += units[self.sources, None] * q.inv_noise[self.sources]
        # Before λ: where they are equal nothing cancels.
        self._inv_change = self._inv_target - self._inv_source - self._shift
        self._rows = [q.whitened(j) for j in (*self.targets, *self.sources)]

    def evaluate(self, lam: Array) -> Dual | None:
        """D and its derivatives at λ [m] ≥ 0, or None where P is not positive definite."""
        total, used = float(lam.sum()), lam > 0.0
        e, terms = 1.0 + lam @ self._inv_change, 1.0 + lam @ np.abs(self._inv_change)
        weight = np.concatenate([total * self._targets, lam * self._sources])
        sign = np.concatenate([-np.ones(len(self._targets)), np.ones(len(lam))])
        keep = [i for i in range(len(weight)) if weight[i] > 0.0 and len(self._rows[i])]
        V = np.concatenate([np.sqrt(weight[i]) * self._rows[i] for i in keep] or [np.zeros((0, len(e)))])
        P = Quadratic(e, terms, V, np.repeat(sign[keep], [len(self._rows[i]) for i in keep]))
        least = self._least(P, lam @ self.b)
        if least is None:
            return None
        delta, quadratic, free = least
        log_theta = self.log_shares(lam)
        value = -float(lam @ (self.q0 + log_theta)) - 0.5 * quadratic
        bent = self.bend(delta)
        q = np.where(used, self.q0 + self.b @ delta + 0.5 * (bent @ delta) + log_theta, 0.0)
        return Dual(lam, value, delta, quadratic, q, self.b + bent, free)

    def _least(self, quadratic: Quadratic, b: Array) -> tuple[Array, float, Curvature | FreeCurvature] | None:
        """The minimiser of ½ δᵀ P δ - bᵀ δ, a bound from above on -2 times the minimum, and P; None where P is not
        positive definite.
        """
        P = quadratic.factor()
        if P is None:
            return None
        delta, left = P.solve(b)
        # Exact to second order in the residual; what the residual may add is added twice.
        return delta, float((b + left) @ delta) + 2.0 * abs(float(left @ P.solve(left)[0])), P

    def log_shares(self, lam: Array) -> Array:
        """log θ [m], the shares within each class; 0 where λ is 0."""
        used = lam > 0.0
        return np.log(np.where(used, lam, 1.0) / np.where(used, self._same @ lam, 1.0))

    def softness(self, lam: Array) -> Array:
        """What Gibbs' entropy adds to -diag(1/λ) in its second derivatives [m, m]."""
        totals = self._same @ lam
        return np.asarray(self._same / np.where(totals > 0.0, totals, 1.0))

    def bend(self, delta: Array) -> Array:
        """H_i δ = A_{s_i} δ - Σ φ_t A_t δ, [m, d], with the share that allows for rounding."""
        parts = [(W @ delta) @ W for W in self._rows]
        m = len(self._targets)
        target = self._inv_target * delta - sum(p * part for p, part in zip(self._targets, parts, strict=False))
        source = [
            inv * delta - scale * part
            for inv, scale, part in zip(self._inv_source, self._sources, parts[m:], strict=True)
        ]
        return np.asarray(np.stack(source) + self._shift * delta - target)

    def bound(self, dual: Dual) -> float:
        """The radius that a dual proves; 0 if none, or if its value is beyond float64."""
        return float(np.sqrt(2.0 * dual.value) * (1.0 - BOUND_MARGIN)) if 0.0 < dual.value < np.inf else 0.0


def entropy(theta: Array) -> float:
    """H(θ)."""
    return float(-(theta * np.log(theta)).sum())


def responsibilities(log_prob: Array) -> Array:
    """Shares of components within their sum."""
    return np.asarray(np.exp(log_prob - log_sum_exp(log_prob)))
