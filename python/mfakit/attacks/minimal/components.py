"""A classifier, one sample, and a ray from it, as the path in the d features needs them.

Components of all classes are numbered through, K in all. With the precision A_j = Σ_j⁻¹ = D_j⁻¹ - W_jᵀ W_j

    log p_j(x + δ) = log p_j(x) + g_j · δ - ½ δᵀ A_j δ,    g_j = -A_j (x - μ_j),

so along a ray every log p_j is a quadratic in one variable, and crossing the mixture's boundary costs O(K) a point.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...backends.duals import DensityRay, FeatureSample, crossing
from ...bayes.classifier import BayesClassifier
from ...mixture.factors import thin_svd
from ..rounding import ROUNDING, normaliser_sizes, tilt

__all__ = ["SHIFT", "Components", "Ray", "Sample", "Side", "log_sum_exp"]

Array = NDArray[Any]

SHIFT = 6.0 * ROUNDING
# Points of a ray that are evaluated together, and the relative width at which the interval of its crossing is narrow
# enough.
GRID, NARROW = 33, 1e-13
# Points of a ray beyond the one that should be near its crossing, relative to it.
FARTHER = 1.0 + np.geomspace(1e-10, 3.0, 32)


def log_sum_exp(values: Array) -> Array:
    """Log Σ exp over the last axis; -inf where all are."""
    top = values.max(axis=-1, initial=-np.inf)
    safe = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return np.asarray(safe + np.log(np.exp(values - safe[..., None]).sum(axis=-1)))


class Components:
    """The K components of a classifier.

    Attributes
    ----------
    means, inv_noise : [K, d]
        μ and 1/D.
    log_const : [K]
        log prior + log weight - ½ log det(2π Σ); -inf for a component that does not occur.
    whitened_by_class : tuple of [k, l, d]
        W of each class's components.
    steepness : [K]
        √max 1/D: how fast the root of a Mahalanobis distance can change along a unit vector, at most.
    tilt, size : [K]
        How far rounding moves log p, see :mod:`mfakit.attacks.rounding`; and l of each component with it.
    owner, first : int64 [K], [C + 1]
        The class of each component, and where each class's components begin.
    compiled : bool
        Whether compiled code computes with them where there is some.
    """

    def __init__(self, clf: BayesClassifier, compiled: bool = False) -> None:
        self.compiled = compiled
        factors = [m.factors for m in clf.mixtures]
        counts = [m.n_components for m in clf.mixtures]
        self.first = np.cumsum([0, *counts])
        self.owner = np.repeat(np.arange(len(counts)), counts)
        self.means = np.concatenate([f.means for f in factors])
        d = self.means.shape[1]
        self.inv_noise = np.concatenate([np.broadcast_to(1.0 / f.noise, (len(f.noise), d)) for f in factors])
        with np.errstate(divide="ignore"):
            log_priors = np.log(clf.priors)
        self.log_const = np.concatenate([f.log_norm + p for f, p in zip(factors, log_priors, strict=True)])
        self.steepness = np.sqrt(self.inv_noise.max(axis=1))
        self.whitened_by_class = tuple(f.whitened for f in factors)  # [k, l, d] by class, not copied
        self.tilt = np.array([_tilt(A, D) if weight > 0 else 0.0 for m, f in zip(clf.mixtures, factors, strict=True)
                              for weight, A, D in zip(m.weights, m.loadings, f.noise, strict=True)])  # fmt: skip
        sizes = [normaliser_sizes(m, float(p)) for m, p in zip(clf.mixtures, clf.priors, strict=True)]
        l = np.repeat([m.n_factors for m in clf.mixtures], counts)
        self.size = np.concatenate(sizes) + l * self.tilt / ROUNDING

    def members(self, c: int) -> Array:
        """The components of class c that occur."""
        numbers = np.arange(self.first[c], self.first[c + 1])
        return numbers[self.log_const[numbers] > -np.inf]

    def same_density(self, s: int, t: int) -> bool:
        """Whether two components have the same parameters, so that log p_t - log p_s is the same everywhere."""
        parts = ((self.means[s], self.means[t]), (self.inv_noise[s], self.inv_noise[t]))
        return all(map(np.array_equal, *zip(*parts, strict=True))) and np.array_equal(
            self.whitened(s), self.whitened(t)
        )

    def whitened(self, j: int) -> Array:
        """W_j [l, d]."""
        c = self.owner[j]
        return np.asarray(self.whitened_by_class[c][j - self.first[c]])

    def latents(self, v: Array) -> list[Array]:
        """W_j v_j by class, [k, l] each, for v [K, d], or W_j v for v [d]."""
        if v.ndim == 1:
            return [W @ v for W in self.whitened_by_class]
        parts = np.split(v, self.first[1:-1])
        return [(W @ part[:, :, None])[:, :, 0] for W, part in zip(self.whitened_by_class, parts, strict=True)]

    def back(self, y: list[Array]) -> Array:
        """W_jᵀ y_j [K, d] of what :meth:`latents` returns."""
        return np.concatenate([(part[:, None] @ W)[:, 0] for W, part in zip(self.whitened_by_class, y, strict=True)])

    def class_totals(self, log_prob: Array) -> Array:
        """Log p of every class, [..., C], from log p of the components, [..., K]."""
        parts = [log_sum_exp(log_prob[..., a:b]) for a, b in zip(self.first[:-1], self.first[1:], strict=True)]
        return np.stack(parts, axis=-1)


class Side(NamedTuple):
    """Which points count as flips: those that are not decided for class `cls` or, with the sign -1, that are."""

    cls: int
    sign: float = 1.0

    def lead(self, totals: Array) -> Array:
        """By how much a flip is ahead, [...], nats, from log p of the classes [..., C]."""
        others = totals.copy()
        others[..., self.cls] = -np.inf
        return np.asarray(self.sign * (others.max(axis=-1) - totals[..., self.cls]))

    def winner(self, totals: Array) -> int:
        """The class that a flip is decided for, from log p of the classes [C]."""
        others = totals.copy()
        others[self.cls] = -np.inf
        return int(others.argmax()) if self.sign > 0.0 else self.cls


def _tilt(A: Array, noise: Array) -> float:
    """How far rounding tilts the whitened loadings of A [d, l] that :func:`mfakit.mixture.factors.factorize` makes."""
    if not A.shape[1]:
        return 0.0
    U, S, Vt = thin_svd(np.asarray(A, np.float64) / np.sqrt(noise)[:, None])
    return tilt(A, noise, U, S, Vt)


class Sample:
    """One point x [d]: log p_j(x) [K] with bounds on their rounding, and gradients g_j [K, d]."""

    def __init__(self, components: Components, x: Array) -> None:
        self.components, self.x = components, x
        self._residual = x - components.means
        self._scaled = self._residual * components.inv_noise
        self.latents = components.latents(self._residual)
        self._squares = np.einsum("kd,kd->k", self._residual, self._scaled)  # ‖x - μ‖² in the metric of D⁻¹
        explained = np.concatenate([np.einsum("kl,kl->k", y, y) for y in self.latents])
        self.maha = np.maximum(self._squares - explained, 0.0)
        self.log_prob = components.log_const - 0.5 * self.maha
        self.gradients = components.back(self.latents) - self._scaled

    @cached_property
    def operand(self) -> FeatureSample:
        """What compiled code reads."""
        q = self.components
        rounding = self.rounding(np.arange(len(self.maha)))
        return FeatureSample(
            q.inv_noise, q.log_const, q.tilt, q.owner, q.whitened_by_class, self.maha, rounding, self.gradients
        )

    def rounding(self, members: Array) -> Array:
        """The part of what log p_j(x + δ) may be off by that does not depend on δ, for some components; the other one
        is SHIFT δᵀ D⁻¹ δ / 2, since (|r| + |δ|)² ≤ 3/2 r² + 3 δ².
        """
        q = self.components
        squares = ROUNDING * self._squares[members]
        return np.asarray((1.5 + 2.0 * q.tilt[members]) * squares + ROUNDING * q.size[members])

    def maha_within(self, j: int) -> tuple[float, float]:
        """The least and the most that the squared Mahalanobis distance to component j can be."""
        error = 2.0 * float(self.rounding(np.array([j]))[0]) + 2.0 * self.components.tilt[j] * float(self.maha[j])
        return max(float(self.maha[j]) - error, 0.0), float(self.maha[j]) + error

    def margin_gradient(self, side: Side) -> Array:
        """∇ of how much a flip is ahead, [d]."""
        q = self.components
        rival = Side(side.cls).winner(q.class_totals(self.log_prob))
        g = np.zeros_like(self.x)
        for cls, sign in ((rival, side.sign), (side.cls, -side.sign)):
            members = q.members(cls)
            shares = np.exp(self.log_prob[members] - log_sum_exp(self.log_prob[members]))
            g += sign * (shares @ self.gradients[members])
        return g

    def ray(self, u: Array) -> Ray:
        """The ray x + τ u."""
        return Ray(self, u)

    def slopes(self, u: Array) -> tuple[Array, Array]:
        """First and second derivatives of log p_j along u, [K] each."""
        q = self.components
        y = q.latents(u)
        curve = np.concatenate([np.einsum("kl,kl->k", v, v) for v in y]) - q.inv_noise @ (u * u)
        return self.gradients @ u, curve


class Ray:
    """log p along x + τ u, as quadratics in τ."""

    def __init__(self, sample: Sample, u: Array) -> None:
        self.sample, self.u = sample, u
        self.length = float(np.linalg.norm(u))
        self.slope, self.curve = sample.slopes(u)

    def log_prob(self, tau: Array) -> Array:
        """log p_j(x + τ u), [n, K] for τ [n]."""
        t = np.atleast_1d(tau)[:, None]
        return np.asarray(self.sample.log_prob + t * self.slope + 0.5 * t * t * self.curve)

    def margins(self, tau: Array, side: Side) -> Array:
        """How much a flip is ahead, [n], nats."""
        return side.lead(self.sample.components.class_totals(self.log_prob(tau)))

    def crossing(self, side: Side, inside: float, around: float, limit: float = np.inf) -> float:
        """The first τ found where there is a flip, infinite if there is none up to 4 `around` and up to `limit`.

        `inside` is a τ up to which nothing flips. What is returned is beyond the boundary by at most a rounding.
        """
        near = np.linspace(min(inside, around), around, 16, endpoint=False)
        tau = np.concatenate([[0.0], near, around * FARTHER])
        if limit < tau[-1]:
            tau = np.append(tau[tau < limit], limit)
        q = self.sample.components
        if q.compiled:
            ray = DensityRay(self.sample.log_prob, self.slope, self.curve, q.first, side.cls, side.sign)
            return crossing(ray, tau)
        while True:
            beyond = self.margins(tau, side) > 0.0
            if not beyond.any():
                return float("inf")
            i = int(beyond.argmax())
            low, high = float(tau[max(i - 1, 0)]), float(tau[i])
            if high - low <= NARROW * high:
                return high
            tau = np.linspace(low, high, GRID)
