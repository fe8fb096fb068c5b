"""The operation that brackets smallest perturbations in factor coordinates, and what only it takes.

It is compiled code only, and not in the table: its readable version is the search in the d features,
:mod:`mfakit.attacks.minimal.search`, which brackets the same lengths by other algorithms, and so by other numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._threads.process import forked
from .operands import Coordinates

__all__ = ["Certificates", "PairQuadrics", "Samples", "certify"]

Array = NDArray[Any]


class PairQuadrics(NamedTuple):
    """The Hessians H of log p_t - log p_s for all P pairs s < t of K components of different classes, and roundings."""

    rows: Array  # int64 [K, K] row of a pair in the next three, symmetric
    rank: Array  # int64 [P] dimension of span{U_s, U_t}
    values: Array  # [P, 2l] eigenvalues of H - κI there
    vectors: Array  # [P, 2l, 2l] eigenvectors as rows of coefficients of [U_s; U_t]
    units: float  # relative rounding of the eigenpairs and the inner products, in the metric of the noise
    tilt: Array  # [K] rounding of log p_j relative to its Mahalanobis distance
    size: Array  # [K] magnitude of the terms of its normaliser
    n_features: int  # d


class Samples(NamedTuple):
    """n samples by their inner products with the C columns, each decided for its class."""

    a: Array  # [n, C]
    sq: Array  # [n] ‖x - c‖²
    y: Array  # int64 [n] classes


class Certificates(NamedTuple):
    """What is found for n samples."""

    alpha: Array  # [n] the perturbation is α (x - c) + w · columns
    w: Array  # [n, C]
    bracket: Array  # [n, 2] lower and upper; an infinite upper without a flip, NaN beyond float64's range
    reports: Array  # int64 [n, 5] source, target (numbered over all classes), target's class, pairs, duals

    @classmethod
    def zeros(cls, n: int, n_columns: int) -> Certificates:
        """Room for n samples and C columns."""
        return cls(np.zeros(n), np.zeros((n, n_columns)), np.zeros((n, 2)), np.zeros((n, 5), np.int64))


def certify(
    coordinates: Coordinates, pairs: PairQuadrics, samples: Samples, found: Certificates, n_threads: int = 1
) -> None:
    """Bracket the smallest perturbation of each sample x of class S = y.

        lower ≤ min {‖δ‖ : log p_T(x + δ) ≥ log p_S(x + δ) for a class T other than S} ≤ upper = ‖δ*‖,

    where p_T is the sum of prior times weight times density over the components of T, and x + δ* is decided for another
    class. The lower bound is the least over targets t of the best of these, c_t an upper bound on log p_T - log p_t at
    any flip that is no farther than ‖δ*‖, s the most likely source and s_1, ... up to six sources:

        min {‖δ‖ : log p_t + c_t ≥ log p_s}            the root of a secular equation, from `pairs`
        min {‖δ‖ : log p_t + c_t ≥ log Σ_i p_{s_i}}    the maximum of a concave dual

    δ* is a minimiser of these, moved along the mixture's own boundary while that makes it shorter. Bounds allow for all
    rounding (:mod:`mfakit.attacks.rounding`). The proof is in ``docs/certificates.md``.
    """
    from .. import _native

    _native.certify(coordinates, pairs, samples, found, 1 if forked() else n_threads)
