"""Pairs of mixtures whose subspaces are easy or hard to measure, and all their distances, solved one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from support import random_mfa

import mfakit
from mfakit.mixture.subspaces.pairs import solve_pairs

Array = NDArray[Any]
Pair = tuple[mfakit.MFA, mfakit.MFA]


def mixture(means: Any, loadings: Any, weights: Any = None) -> mfakit.MFA:
    """Subspaces μ + span A; the noise plays no part."""
    k = len(means)
    return mfakit.MFA(np.full(k, 1 / k) if weights is None else weights, means, loadings, 1.0)


def low_rank(k: int, d: int, l: int, seed: int) -> mfakit.MFA:
    """Subspaces whose means and directions lie near few dimensions, as those of images do."""
    rng = np.random.default_rng(seed)
    scales = 0.7 ** np.arange(d) + 1e-3
    return mixture(4 * rng.normal(size=(k, d)) * scales, rng.normal(size=(k, d, l)) * scales[:, None])


def duplicated() -> Pair:
    """Components that are there several times, on both sides, and twice in a row."""
    mfa0, mfa1 = low_rank(7, 30, 2, 1), low_rank(6, 30, 2, 2)
    (m0, A0), (m1, A1) = ((np.tile(m.means, (3, 1)), np.tile(m.loadings, (3, 1, 1))) for m in (mfa0, mfa1))
    return mixture(m0, A0), mixture(np.repeat(m1, 2, axis=0), np.repeat(A1, 2, axis=0))


def touching() -> Pair:
    """Some pairs meet in a point, some share a direction, some do both, some are the same."""
    rng = np.random.default_rng(3)
    mfa0, mfa1 = low_rank(6, 40, 3, 4), low_rank(6, 40, 2, 5)
    means, A = mfa1.means.copy(), mfa1.loadings.copy()
    for j in range(3):
        means[j] = mfa0.means[j] + mfa0.loadings[j] @ rng.normal(size=3) + A[j] @ rng.normal(size=2)
    A[2:5, :, 0] = mfa0.loadings[2:5] @ rng.normal(size=3)
    A[5], means[5] = mfa0.loadings[5, :, :2], mfa0.means[5]
    return mfa0, mixture(means, A)


def gone() -> Pair:
    """Components without weight, which would be the nearest, with loadings that no projection sees."""
    mfa0, mfa1 = low_rank(5, 30, 2, 1), low_rank(6, 30, 2, 2)
    means, A = mfa1.means.copy(), mfa1.loadings.copy()
    means[2] = mfa0.means[1]
    A[4] = 0
    A[4, -2:] = np.eye(2)
    weights = np.full(6, 0.2)
    weights[2] = 0.0
    return mixture(mfa0.means, mfa0.loadings, [0.0, 0.25, 0.25, 0.25, 0.25]), mixture(means, A, weights)


def scaled(scale: float) -> Pair:
    mfa0, mfa1 = (m.replace(means=scale * m.means, loadings=scale * m.loadings) for m in touching())
    return mfa0, mfa1


CASES = {
    "low rank": lambda: (low_rank(20, 60, 2, 1), low_rank(22, 60, 3, 2)),
    "random": lambda: (random_mfa(9, 40, 3, seed=1), random_mfa(8, 40, 2, seed=2)),
    "points": lambda: (low_rank(12, 30, 0, 1), low_rank(15, 30, 0, 2)),
    "points and planes": lambda: (low_rank(12, 30, 0, 1), low_rank(15, 30, 2, 2)),
    "planes and points": lambda: (low_rank(12, 30, 2, 1), low_rank(15, 30, 0, 2)),
    "they fill the space": lambda: (random_mfa(6, 5, 3, seed=1), random_mfa(7, 5, 4, seed=2)),
    "more factors than features": lambda: (random_mfa(6, 3, 5, seed=1), random_mfa(7, 3, 1, seed=2)),
    "one feature": lambda: (random_mfa(6, 1, 0, seed=1), random_mfa(7, 1, 0, seed=2)),
    "ties": lambda: (mixture(np.repeat(np.eye(7), 2, axis=0), np.zeros((14, 7, 1))),
                     mixture(np.repeat(2 * np.eye(7), 3, axis=0), np.zeros((21, 7, 2)))),
    "duplicated": duplicated,
    "touching": touching,
    "without weight": gone,
    "far from the origin": lambda: tuple(m.replace(means=m.means + 1e6) for m in touching()),
    "1e-20": lambda: scaled(1e-20),
    "1e18": lambda: scaled(1e18),
}  # fmt: skip


def solved(mfa0: mfakit.MFA, mfa1: mfakit.MFA) -> Array:
    """All pairs, one by one."""
    i, j = np.indices((mfa0.n_components, mfa1.n_components)).reshape(2, -1)
    found = np.concatenate(
        [solve_pairs(mfa0.subspaces, i[m : m + 1], mfa1.subspaces, j[m : m + 1]) for m in range(len(i))]
    ).reshape(mfa0.n_components, -1)
    found[mfa0.weights == 0], found[:, mfa1.weights == 0] = np.inf, np.inf
    return found
