"""Searches in one variable, by evaluations of a :class:`~mfakit.attacks.minimal.lagrangian.Lagrangian` of one source.

Along δ(λ) = λ (I - λH)⁻¹ b the constraint q rises with the slope ‖P^-½ (b + Hδ)‖² > 0 and ‖δ‖ grows, so both searches
keep a bracket that always shrinks: below it q is short of 0, above it q is reached or P is not positive definite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .components import Array
from .lagrangian import Dual, Lagrangian

__all__ = ["Root", "highest_within", "maximise", "nearest_on_quadric", "with_top_direction"]

# More steps than it takes to halve the exponent of any bracket, and then its width, down to rounding. A search that is
# cut short returns the best bound so far.
MOST_STEPS = 300
# Relative: q counts as 0, and a bracket as a point.
ZERO, POINT = 1e-13, 1e-14
# A radius proved beyond this length is returned as infinity: it is above all lengths and noise that are accepted.
BEYOND = 1e90
NEWTON_STEPS, HALVINGS = 40, 12
# Relative gain at which the steps end; less than the margins subtract.
LEAST_GAIN = 1e-13
# Added to a step's matrix of unit diagonal: shares that are almost 0 are not known to a rounding of the others there.
RIDGE = 1e-12


@dataclass
class Root:
    """The end of a search: the dual of the best bound [radius], and whether it stopped at the pole of P⁻¹."""

    dual: Dual | None
    radius: float
    at_pole: bool = False


def nearest_on_quadric(L: Lagrangian, theta: Array, guess: float | None = None, enough: float = np.inf) -> Root:
    """The nearest δ with Σ θ_i q_i(δ) ≥ H(θ), one quadric: its dual, and the radius it proves.

    The search ends early once `enough` is proved; infinite where the quadric cannot be reached.
    """
    need = -float(theta @ (L.q0 + L.log_shares(theta)))
    reach = float(np.linalg.norm(theta @ L.b))
    if not 0.0 < need < np.inf:
        return Root(None, 0.0)
    low, high, pole, best = 0.0, np.inf, False, Root(None, 0.0)
    total = guess or (need / reach**2 if reach > 0.0 else need)
    for _ in range(MOST_STEPS):
        dual = L.evaluate(total * theta)
        wanted = 0.0
        if dual is None:
            high, pole = total, True
        else:
            proved, short = L.bound(dual), float(theta @ dual.q)
            if best.dual is None or proved > best.radius:
                best = Root(dual, proved)
            if abs(short) <= max(ZERO, L.tolerance) * need or proved >= enough:
                return best
            if short < 0.0:
                low = total
            else:
                high, pole = total, False
            if proved > L.farthest or (high == np.inf and proved > BEYOND):
                return Root(dual, np.inf)
            wanted = _newton(total, need, short, dual, theta)
        if high < np.inf and high - low <= max(POINT, L.tolerance) * high:
            best.at_pole = pole
            return best
        total = wanted if low < wanted < high else _between(low, high)
        if total > 1e200:
            break  # q gets no nearer to 0 at larger λ
    return best


def _newton(total: float, need: float, short: float, dual: Dual, theta: Array) -> float:
    """Newton's step on rise^-½, which is nearly linear up to the pole; 0 if there is none."""
    J = theta @ dual.slopes
    rise, slope = short + need, float(J @ dual.P.solve(J)[0])
    if not (rise > 0.0 and slope > 0.0):
        return 0.0
    return total - 2.0 * rise / slope * (float(np.sqrt(rise / need)) - 1.0)


def maximise(L: Lagrangian, theta: Array, guess: float | None = None, enough: float = np.inf) -> Root:
    """Maximise D over λ = Λ θ: over Λ by a root search, so that the pole of P⁻¹ limits no step, and over θ by
    damped Newton steps with Λ eliminated. A share that becomes negligible is set to 0 and stays 0.

    Stops as soon as `enough` is proved. The result is a lower bound wherever it stops.
    """
    best = nearest_on_quadric(L, theta, guess, enough)
    for _ in range(NEWTON_STEPS if len(theta) > 1 else 0):
        if best.dual is None or best.radius >= enough or best.radius == np.inf:
            break
        after = _improve(L, best, best.dual, enough)
        if after is None:
            break
        gained, best = after.radius - best.radius, after
        if gained <= max(LEAST_GAIN, L.tolerance) * best.radius:
            break
    return best


def _improve(L: Lagrangian, here: Root, dual: Dual, enough: float) -> Root | None:
    """One damped Newton step in θ, or None if none gains."""
    total = float(dual.lam.sum())
    on = np.flatnonzero(dual.lam > 1e-13 * total)
    lam, J = dual.lam[on], dual.slopes[on]
    q = (_at_pole(L, dual) if here.at_pole else dual.q)[on]
    if len(on) < 2 or (np.abs(q - lam @ q / total) <= 1e-9 + 1e-13 * np.abs(L.q0[on])).all():
        return None
    along = lam @ J  # Λ's own direction; the others are made orthogonal to it in P⁻¹, before they are multiplied
    back = dual.P.solve(along)[0]
    moved = float(along @ back)
    if not moved > 0.0:  # in a box where no coordinate is free
        return None
    K = J - np.outer(J @ back / moved, along)
    A = lam[:, None] * (K @ dual.P.solve(K)[0].T - L.softness(dual.lam)[np.ix_(on, on)]) * lam + np.diag(lam)
    A += np.trace(A) / len(A)  # singular along λ, where D does not change
    if not (np.diag(A) > 0.0).all():
        return None
    scale = 1.0 / np.sqrt(np.diag(A))  # entries differ by many orders of magnitude
    A = A * np.outer(scale, scale) + RIDGE * np.eye(len(A))
    try:
        change = -scale * np.linalg.solve(A, scale * lam * (q - lam @ q / total))  # relative
    except np.linalg.LinAlgError:  # a source has no effect beyond rounding
        return None
    change -= lam @ change / total
    predicted = -0.5 * float(lam @ (change * q))
    if predicted <= max(LEAST_GAIN, L.tolerance) * abs(dual.value):
        return None
    share = min(1.0, 0.9 / max(float(-change.min()), 1e-300), 10.0 / max(float(change.max()), 1e-300))
    for _ in range(HALVINGS):
        theta = np.zeros_like(dual.lam)
        theta[on] = lam * (1.0 + share * change) / total
        there = nearest_on_quadric(L, theta / theta.sum(), total, enough)
        if there.radius > here.radius:
            return there
        share *= 0.5
    return None


def _at_pole(L: Lagrangian, dual: Dual) -> Array:
    """q_i on average over the two points that complete the hard case."""
    z = _top_direction(L, dual)
    curves = np.asarray(L.bend(z) @ z)
    curve = float(dual.lam @ curves)
    return np.asarray(dual.q - curves * float(dual.lam @ dual.q) / curve) if curve > 0.0 else dual.q


def _between(low: float, high: float) -> float:
    """A point inside a bracket: by magnitude while it is wide."""
    if high == np.inf:
        return 16.0 * low
    if low == 0.0:
        return 1e-2 * high
    return float(np.sqrt(low * high)) if high > 2.0 * low else 0.5 * (low + high)


def highest_within(L: Lagrangian, radius: float, enough: float = -40.0) -> float:
    """An upper bound on q(δ) over ‖δ‖ ≤ radius for one source, at most 0 or not needed: 0 where q may reach 0.

    Weak duality again: q(δ) ≤ q(0) + r²/2λ + ½ λ bᵀ P⁻¹ b for every λ with P ≻ 0. Stops below `enough`.
    """
    reach = float(np.linalg.norm(L.b))
    low, high, best = 0.0, np.inf, 0.0
    lam = radius / reach if reach > 0.0 else radius**2 / max(-float(L.q0[0]), 1.0)
    for _ in range(24):
        dual = L.evaluate(np.array([lam]))
        if dual is None:
            high, wanted = lam, 0.0
        else:
            best = min(best, float(L.q0[0]) + 0.5 * (radius**2 + dual.quadratic) / lam)
            length = float(np.linalg.norm(dual.delta))
            if best < enough or abs(length - radius) <= 1e-2 * radius:
                break
            if length > radius:
                high = lam
            elif dual.q[0] >= 0.0:
                return 0.0  # reached inside the ball
            else:
                low = lam
            wanted = lam * radius / length if length > 0.0 else 0.0
        if high < np.inf and high - low <= 1e-6 * high:
            break
        lam = wanted if low < wanted < high else _between(low, high)
        if lam > 1e200:
            break
    return best


def with_top_direction(L: Lagrangian, dual: Dual) -> list[Array]:
    """The hard case: P is nearly singular, and δ does not reach the quadric. The two points that do, by a step along
    the top eigenvector of H in either direction, which does not change the Lagrangian.
    """
    z = _top_direction(L, dual)
    short, slope = float(dual.lam @ dual.q), float(dual.lam @ dual.slopes @ z)
    curve = float(dual.lam @ (L.bend(z) @ z))
    if not short < 0.0 < curve:
        return []
    root = float(np.sqrt(slope**2 - 2.0 * curve * short))
    return [dual.delta + tau * z for tau in ((root - slope) / curve, (-root - slope) / curve)]


def _top_direction(L: Lagrangian, dual: Dual) -> Array:
    """The unit eigenvector of P's smallest eigenvalue, by inverse iteration; accurate enough for a step along it."""
    z = np.cos(np.arange(L.b.shape[1]) + 1.0)  # a direction that is hardly orthogonal to it
    for _ in range(4):
        z = dual.P.solve(z / np.linalg.norm(z))[0]
        if not z.any():  # in a box where no coordinate is free
            return z
    return np.asarray(z / np.linalg.norm(z))
