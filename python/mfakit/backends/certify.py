"""The operation that brackets smallest perturbations in factor coordinates. Compiled code only: its readable version is
the search in the d features, :mod:`mfakit.attacks.minimal.search`, which proves the same by other algorithms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._threads.process import forked

if TYPE_CHECKING:
    from ..attacks.coordinates import FactorCoordinates
    from ..attacks.minimal.pairs import PairTable

__all__ = ["Certificates", "Samples", "certify"]

Array = NDArray[Any]


class Samples(NamedTuple):
    """n samples by their inner products with the C columns; all are decided for their class `y`.

    Attributes
    ----------
    a : [n, C]
    sq : [n]
        ‖x - center‖².
    y : int64 [n]
    """

    a: Array
    sq: Array
    y: Array


class Certificates(NamedTuple):
    """What is found of n samples.

    Attributes
    ----------
    alpha, w : [n], [n, C]
        The perturbation α (x - center) + w · columns; zeros where no flip is known.
    bracket : [n, 2]
        Lower and upper bound on the length of the smallest perturbation that flips; infinite upper bounds where no flip
        is known, NaN where numbers leave float64's range.
    reports : int64 [n, 5]
        Source, target (components numbered over all classes), the target's class, pairs examined, duals solved.
    """

    alpha: Array
    w: Array
    bracket: Array
    reports: Array

    @classmethod
    def zeros(cls, n: int, n_columns: int) -> Certificates:
        """Room for n samples and C columns."""
        return cls(np.zeros(n), np.zeros((n, n_columns)), np.zeros((n, 2)), np.zeros((n, 5), np.int64))


def certify(
    coordinates: FactorCoordinates, pairs: PairTable, samples: Samples, found: Certificates, n_threads: int = 1
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
