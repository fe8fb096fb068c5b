"""The searches for multipliers that bracket smallest perturbations in the d features, and what only they take.

Compiled code only, and not in the table: :mod:`mfakit.attacks.minimal.roots` and
:mod:`mfakit.attacks.minimal.lagrangian` are the readable version, which says what is computed. Each call is one search
in one thread, with the GIL free.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DensityLine", "FeatureBox", "FeatureProblem", "FeatureSample", "Found", "HowFar", "crossing", "highest_in_ball",
    "search_dual", "slope_at",
]  # fmt: skip

Array = NDArray[Any]


class FeatureSample(NamedTuple):
    """K components of a classifier, and what is known of them at a sample x."""

    inv_noise: Array  # [K, d] 1/D
    log_const: Array  # [K]
    tilt: Array  # [K] rounding of log p_j relative to its Mahalanobis distance
    owner: Array  # int64 [K] classes
    whitened: tuple[Array, ...]  # W [k, l, d] of each class
    maha: Array  # [K] squared Mahalanobis distances of x
    rounding: Array  # [K] of log p_j(x + δ), what does not depend on δ
    gradients: Array  # [K, d] of log p_j at x


class FeatureProblem(NamedTuple):
    """Σ_t share_t log p_t + offset ≥ log Σ_i p_{s_i} is what a flip needs."""

    targets: Array  # int64 [p]
    share: Array  # [p]
    offset: float
    sources: Array  # int64 [m]
    safe: bool  # whether what rounding may add is in the constraint
    equal: bool  # one source and one target of the same density


class FeatureBox(NamedTuple):
    """The displacements that are allowed."""

    low: Array  # [d]
    high: Array  # [d]


class HowFar(NamedTuple):
    """Where a search begins and ends."""

    guess: float  # the first Σ λ, 0 for none
    enough: float  # the radius at which it ends
    farthest: float  # no δ that is allowed is longer
    tolerance: float  # relative gain at which it may end
    all: bool  # whether to search over θ, too


class Found(NamedTuple):
    """The end of a search with m sources."""

    lam: Array  # [m]
    delta: Array  # [d] the minimiser
    aside: Array  # [2, d] in the hard case the two points that complete it

    @classmethod
    def empty(cls, m: int, d: int) -> Found:
        """Room for m sources and d features."""
        return cls(np.empty(m), np.empty(d), np.empty((2, d)))


class DensityLine(NamedTuple):
    """log p_j along a line in τ, and which points of it are flips."""

    log_prob: Array  # [K] at τ = 0
    slope: Array  # [K]
    curve: Array  # [K]
    first: Array  # int64 [C + 1] where each class's components begin
    cls: int
    sign: float  # 1: flips are decided for another class than cls; -1: for cls


def search_dual(
    sample: FeatureSample, problem: FeatureProblem, box: FeatureBox | None, theta: Array, how: HowFar, found: Found
) -> tuple[float, bool, bool]:
    """Maximise the dual from shares θ [m] on. The radius that it proves; whether `found` has a dual, and the points of
    the hard case.
    """
    from .. import _native

    radius, has_dual, has_aside = _native.search_dual(sample, problem, box, theta, how, found)
    return float(radius), bool(has_dual), bool(has_aside)


def highest_in_ball(
    sample: FeatureSample, problem: FeatureProblem, box: FeatureBox | None, radius: float, enough: float
) -> float:
    """A bound on the constraint over ‖δ‖ ≤ radius, at most 0; need not be below `enough`."""
    from .. import _native

    return float(_native.highest_in_ball(sample, problem, box, radius, enough))


def slope_at(sample: FeatureSample, problem: FeatureProblem, theta: Array, delta: Array) -> float:
    """The length of the constraint's gradient at x + δ, sources with shares θ [m]."""
    from .. import _native

    return float(_native.slope_at(sample, problem, theta, delta))


def crossing(line: DensityLine, tau: Array) -> float:
    """The first flip among τ [n] in rising order, moved as near as rounding allows to the point before it; infinite if
    there is none.
    """
    from .. import _native

    return float(_native.crossing(line, tau))
