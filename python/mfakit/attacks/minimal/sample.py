"""One sample, and lines near it, as the path in the d features needs them.

With the precision A_j = Σ_j⁻¹ = D_j⁻¹ - W_jᵀ W_j

    log p_j(x + δ) = log p_j(x) + g_j · δ - ½ δᵀ A_j δ,    g_j = -A_j (x - μ_j),

so along a line every log p_j is a quadratic in one variable, and crossing the mixture's boundary costs O(K) a point.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ...backends.duals import DensityLine, FeatureSample, crossing
from ..rounding import ROUNDING
from .components import Array, Components, Side, log_sum_exp

__all__ = ["SHIFT", "Line", "Sample"]

SHIFT = 6.0 * ROUNDING
# Points of a line that are evaluated together, and the relative width at which the interval of its crossing is narrow
# enough.
GRID, NARROW = 33, 1e-13
# Points of a line beyond the one that should be near its crossing, relative to it.
FARTHER = 1.0 + np.geomspace(1e-10, 3.0, 32)


class Sample:
    """One point x [d]: log p_j(x) [K] with bounds on their rounding, and gradients g_j [K, d]."""

    def __init__(self, components: Components, x: Array) -> None:
        self.components, self.x = components, x
        residual = x - components.means
        scaled = residual * components.inv_noise
        latents = components.own_latents(residual)
        squares = np.einsum("kd,kd->k", residual, scaled)  # ‖x - μ‖² in the metric of D⁻¹
        explained = np.concatenate([np.einsum("kl,kl->k", y, y) for y in latents])
        self.maha = np.maximum(squares - explained, 0.0)
        self.log_prob = components.log_const - 0.5 * self.maha
        self.gradients = components.back(latents) - scaled
        # The part of what log p_j(x + δ) may be off by that does not depend on δ; the other one is SHIFT δᵀ D⁻¹ δ / 2,
        # since (|r| + |δ|)² ≤ 3/2 r² + 3 δ².
        tilt = components.tilt
        self.rounding = (1.5 + 2.0 * tilt) * (ROUNDING * squares) + ROUNDING * components.size
        # The least and the most that the roots of the squared Mahalanobis distances can be.
        error = 2.0 * self.rounding + 2.0 * tilt * self.maha
        self.nearest, self.farthest = np.sqrt(np.maximum(self.maha - error, 0.0)), np.sqrt(self.maha + error)

    @cached_property
    def operand(self) -> FeatureSample:
        """What compiled code reads."""
        q = self.components
        return FeatureSample(
            q.inv_noise, q.log_const, q.tilt, q.owner, q.whitened_by_class, self.maha, self.rounding, self.gradients
        )

    def log_prob_at(self, deltas: Array) -> Array:
        """log p_j(x + δ), [n, K] for δ [n, d]."""
        q = self.components
        curve = q.squared_latents(deltas) - (deltas * deltas) @ q.inv_noise.T
        return np.asarray(self.log_prob + deltas @ self.gradients.T + 0.5 * curve)

    def gradient_at(self, delta: Array, members: Array, shares: Array) -> Array:
        """Σ_j share_j ∇log p_j(x + δ) over some components, [d]."""
        q = self.components
        used = np.flatnonzero(shares != 0.0)
        numbers, weights = members[used], shares[used]
        g = weights @ self.gradients[numbers] - (weights @ q.inv_noise[numbers]) * delta
        for j, weight in zip(numbers, weights, strict=True):
            W = q.whitened(j)
            g += (weight * (W @ delta)) @ W
        return np.asarray(g)

    def margin_gradient(self, delta: Array, log_prob: Array, side: Side) -> Array:
        """∇ of how much a flip is ahead, [d], at x + δ, where the components have log_prob [K]."""
        q = self.components
        rival = Side(side.cls).winner(q.class_totals(log_prob))
        parts = []
        for cls, sign in ((rival, side.sign), (side.cls, -side.sign)):
            members = q.members(cls)
            parts.append((members, sign * np.exp(log_prob[members] - log_sum_exp(log_prob[members]))))
        return self.gradient_at(delta, *map(np.concatenate, zip(*parts, strict=True)))

    def line(self, u: Array, start: Array | None = None) -> Line:
        """The line x + τ u, or x + start + τ u."""
        return Line(self, u, start)


class Line:
    """log p along x + start + τ u, as quadratics in τ with first and second derivatives `slope` and `curve` [K]."""

    def __init__(self, sample: Sample, u: Array, start: Array | None) -> None:
        self.u, self._components = u, sample.components
        self.length = float(np.linalg.norm(u))
        q, along = sample.components, sample.components.latents(u)
        self._log_prob, self.slope = sample.log_prob, sample.gradients @ u
        if start is not None:
            before = q.latents(start)
            self._log_prob = sample.log_prob_at(start[None])[0]
            mixed = np.concatenate([np.einsum("kl,kl->k", a, b) for a, b in zip(along, before, strict=True)])
            self.slope = self.slope + mixed - q.inv_noise @ (start * u)
        self.curve = np.concatenate([np.einsum("kl,kl->k", y, y) for y in along]) - q.inv_noise @ (u * u)

    def log_prob(self, tau: Array | float) -> Array:
        """log p_j(x + start + τ u), [..., K] for τ [...]."""
        t = np.expand_dims(np.asarray(tau), -1)
        return np.asarray(self._log_prob + t * self.slope + 0.5 * t * t * self.curve)

    def crossing(self, side: Side, inside: float, around: float, limit: float = np.inf) -> float:
        """The first τ found where there is a flip, infinite if there is none up to 4 `around` and up to `limit`.

        `inside` is a τ up to which nothing flips. What is returned is beyond the boundary by at most a rounding.
        """
        near = np.linspace(min(inside, around), around, 16, endpoint=False)
        tau = np.concatenate([[0.0], near, around * FARTHER])
        if limit < tau[-1]:
            tau = np.append(tau[tau < limit], limit)
        q = self._components
        if q.compiled:
            return crossing(DensityLine(self._log_prob, self.slope, self.curve, q.first, side.cls, side.sign), tau)
        while True:
            beyond = side.lead(q.class_totals(self.log_prob(tau))) > 0.0
            if not beyond.any():
                return float("inf")
            i = int(beyond.argmax())
            low, high = float(tau[max(i - 1, 0)]), float(tau[i])
            if high - low <= NARROW * high:
                return high
            tau = np.linspace(low, high, GRID)
