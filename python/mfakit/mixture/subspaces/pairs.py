"""Chosen pairs of affine subspaces, each solved by itself: what a distance is does not depend on which others are asked
for beside it, on tiles, threads or a backend.

With Δ = μ0 - μ1 and the orthonormal rows Q0, Q1 of the two sides, the distance is what is left of Δ when its part in
span [Q0 Q1] is taken off. P = Q1 (I - Q0ᵀ Q0) is made explicitly, twice, so that its singular values are the sines of
the principal angles to rounding, however small they are; a sine that is no more than rounding is a shared direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._checks import check_integers, check_model
from ..._threads.process import keeps_errstate, single_threaded_products
from ..factors import Factors
from ..mfa import MFA

__all__ = ["ClosestPoints", "closest_points", "solve_pairs"]

Array = NDArray[Any]

# Of the arrays of the pairs that are solved together.
BATCH_BYTES = 2**25
# Below this squared sine the normal equations of a pair lose digits, and its directions are found by QR and SVD.
LEAST_SQ_SINE = 1e-4
# A sine that is no more than rounding: the direction is shared.
ROUNDED_SINE = 1e-13


@keeps_errstate
def solve_pairs(side0: Factors, i: Array, side1: Factors, j: Array) -> Array:
    """Distances [m] of the pairs (i, j), indices [m] of subspaces of either side, some at a time."""
    (_, l0, d), (_, l1, _) = side0.shape, side1.shape
    step = max(1, BATCH_BYTES // (8 * d * (2 * l0 + 4 * l1 + 4)))
    found = np.empty(len(i))
    with single_threaded_products():  # small ones
        for start in range(0, len(i), step):
            part = slice(start, start + step)
            found[part] = _distances(side0, i[part], side1, j[part])
    return found


def _distances(side0: Factors, i: Array, side1: Factors, j: Array) -> Array:
    """Distances [m] of some pairs."""
    bases = side0.whitened[i]
    rest = np.concatenate([side1.whitened[j], (side0.means[i] - side1.means[j])[:, None]], axis=1)
    for _ in range(2):
        _take_off(rest, bases)
    turned, delta = np.ascontiguousarray(rest[:, :-1]), np.ascontiguousarray(rest[:, -1:])
    if turned.shape[1]:
        sq_sines, vectors = np.linalg.eigh(turned @ turned.swapaxes(1, 2))
        # A row of zeros (of loadings that span nothing) is a shared direction, too, and needs no QR to be seen.
        spans = (turned != 0).any(axis=2).sum(axis=1)
        steep = (sq_sines >= LEAST_SQ_SINE).sum(axis=1) == spans
        for some, directions in ((steep, _scaled), (~steep, _by_svd)):
            if some.any():
                rows: Array = directions(turned[some], sq_sines[some], vectors[some])
                left: Array = delta[some]
                for _ in range(2):
                    _take_off(left, rows)
                delta[some] = left
    distances: Array = np.linalg.norm(delta[:, 0], axis=1)
    return distances


def _take_off(rows: Array, bases: Array) -> None:
    """rows [m, a, d] less their part in the span of the orthonormal rows of bases [m, l, d], in place."""
    rows -= (rows @ bases.swapaxes(1, 2)) @ bases


def _scaled(turned: Array, sq_sines: Array, vectors: Array) -> Array:
    """Orthonormal rows of the span of turned [m, l, d], whose sines are far from zero, or zero by rows of zeros."""
    kept = sq_sines >= LEAST_SQ_SINE
    gains = np.where(kept, 1.0 / np.sqrt(np.where(kept, sq_sines, 1.0)), 0.0)
    rows: Array = (vectors * gains[:, None, :]).swapaxes(1, 2) @ turned
    return rows


def _by_svd(turned: Array, *_: Array) -> Array:
    """Those of any turned [m, l, d]: rank revealing, a shared direction leaves a row of zeros."""
    Q, R = np.linalg.qr(turned.swapaxes(1, 2))
    U, sines = np.linalg.svd(R, full_matrices=False)[:2]
    rows: Array = (Q @ U * (sines > ROUNDED_SINE)[:, None, :]).swapaxes(1, 2)
    return np.ascontiguousarray(rows)


@dataclass(frozen=True)
class ClosestPoints:
    """The closest points of two subspaces: `point0` [d] on the first, `point1` [d] on the second, `distance` ℓ2."""

    point0: Array
    point1: Array
    distance: float


@keeps_errstate
def closest_points(mfa0: MFA, component0: int, mfa1: MFA, component1: int) -> ClosestPoints:
    """The closest points of component `component0`'s subspace of `mfa0` and `component1`'s of `mfa1`; a small problem,
    solved on the host, whose NumPy arrays it returns wherever the models are. A component of weight 0 is a ValueError.
    """
    check_model("mfa0", mfa0, MFA)
    check_model("mfa1", mfa1, MFA)
    for name, mfa, j in (("component0", mfa0, component0), ("component1", mfa1, component1)):
        check_integers({name: j}, 0, mfa.n_components - 1)
        if mfa.weights[j] == 0:
            raise ValueError(
                f"{name}={j} must have weight, got a component of weight 0; give it one by replace(weights=)"
            )
    side0, side1 = mfa0.subspaces, mfa1.subspaces
    mean0, mean1 = side0.means[component0], side1.means[component1]
    basis0, basis1 = side0.whitened[component0], side1.whitened[component1]
    both = np.concatenate([basis0, -basis1]).T
    # Coordinates on either side; shared directions drop out.
    a = np.linalg.lstsq(both, mean1 - mean0, rcond=ROUNDED_SINE)[0] if both.shape[1] else np.empty(0)
    point0, point1 = mean0 + a[: len(basis0)] @ basis0, mean1 + a[len(basis0) :] @ basis1
    return ClosestPoints(point0, point1, float(np.linalg.norm(point0 - point1)))
