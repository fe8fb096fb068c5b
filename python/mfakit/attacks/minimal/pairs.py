"""The small eigenproblems of all pairs of components of different classes, which exact minimal perturbations start
from.

For source s and target t the Hessian of q = log p_t - log p_s is H = κI + U_tᵀ gain_t U_t - U_sᵀ gain_s U_s with κ =
1/σ_s² - 1/σ_t²; on span{U_s, U_t} it is diagonal in a basis that does not depend on the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends.certify import PairQuadrics
from ..coordinates import FactorCoordinates
from ..rounding import ROUNDING

__all__ = ["PairTable", "why_not_pairs"]

Array = NDArray[Any]

# A direction of span{U_s, U_t} of a squared length below SHARED counts as shared and is dropped, because the Gram
# matrix does not say accurately where it points. A squared length below CLEAR multiplies roundings by CLEAR / length².
SHARED, CLEAR = 1e-4, 1 / 16
# A dropped direction that is shared exactly leaves at most this length, which is added to the roundings.
EXACT = 1e-12
# Pairs at a time: their eigenproblems take a tenth of a second, and Ctrl-C is answered in between.
CHUNK = 1024


@dataclass(frozen=True, eq=False)
class PairTable:
    """Eigenvalues and eigenvectors of H - κI of all pairs s < t of different classes; P pairs, K components.

    Attributes
    ----------
    quadrics : PairQuadrics
        What the kernel reads. `rows` is -1 within a class, eigenpairs beyond `rank` are zero, and eigenvectors are
        orthonormal as vectors of d features.
    lost : float
        A bound on the length of the parts of a pair's rows along dropped directions: at most EXACT where those are
        shared exactly; above it the table does not describe the classifier.
    """

    quadrics: PairQuadrics
    lost: float

    @classmethod
    def of(cls, q: FactorCoordinates) -> PairTable:
        """The table of a classifier's coordinates, computed once and kept with them."""
        kept = q.cache.get("pairs")
        if kept is None:
            kept = q.cache["pairs"] = cls._make(q)
        return kept

    @classmethod
    def _make(cls, q: FactorCoordinates) -> PairTable:
        K, l = q.gain.shape
        owner = np.repeat(np.arange(len(q.first) - 1), np.diff(q.first))
        s, t = np.nonzero(np.triu(owner[:, None] != owner[None]))
        index = np.full((K, K), -1, np.int64)
        index[s, t] = index[t, s] = np.arange(len(s))
        rank = np.zeros(len(s), np.int64)
        lost, shortest = 0.0, 1.0
        values, vectors = np.zeros((len(s), 2 * l)), np.zeros((len(s), 2 * l, 2 * l))
        rows = np.arange(K * (l + 1)).reshape(K, l + 1)[:, :l]
        for start in range(0, len(s) if l else 0, CHUNK):
            part = slice(start, start + CHUNK)
            both = np.concatenate([rows[s[part]], rows[t[part]]], axis=1)
            gram = q.gram[both[:, :, None], both[:, None, :]]
            weight = np.concatenate([-q.gain[s[part]], q.gain[t[part]]], axis=1)
            rank[part], values[part], vectors[part], dropped, least = _eigenpairs(gram, weight)
            shortest = min(shortest, least)
            for i in np.flatnonzero((dropped * (weight != 0)[:, None, :]).any(axis=(1, 2))):
                # In d dimensions: the Gram matrix itself knows lengths to 1e-8 only.
                parts = ((dropped[i] @ q.columns[both[i]]) ** 2).sum(axis=1) @ dropped[i] ** 2
                lost = max(lost, float(np.sqrt(parts[weight[i] != 0].sum())))
        units = ROUNDING * max(1.0, CLEAR / shortest) + 2.0 * lost  # in the metric of the noise
        return cls(PairQuadrics(index, rank, values, vectors, units, q.tilt, q.size, q.columns.shape[1]), lost)


def _eigenpairs(gram: Array, weight: Array) -> tuple[Array, Array, Array, Array, float]:
    """Of Fᵀ diag(weight) F with F Fᵀ = gram [P, r, r]: rank [P], eigenvalues [P, r] and rows T [P, r, r], T F
    orthonormal, the `rank` that count first; the eigenvectors of gram that were dropped as rows, others zero; and the
    least eigenvalue of gram that was not dropped.
    """
    length, Q = np.linalg.eigh(gram)
    span = length > SHARED
    root = np.sqrt(np.where(span, length, 0.0))
    inverse = np.where(span, 1.0 / np.where(span, root, 1.0), 0.0)
    small = (root[:, :, None] * np.swapaxes(Q, 1, 2) * weight[:, None, :]) @ (Q * root[:, None, :])
    # Directions that were dropped have zero rows in `small`; a shift keeps their eigenvectors apart from the others.
    shift = 1.0 + 2.0 * np.abs(small).sum(axis=2).max(axis=1)
    small[:, np.arange(small.shape[1]), np.arange(small.shape[1])] += np.where(span, 0.0, shift[:, None])
    values, V = np.linalg.eigh(small)
    rank = span.sum(axis=1)
    counts = np.arange(values.shape[1]) < rank[:, None]  # dropped ones have the largest eigenvalues, hence come last
    T = np.swapaxes(V, 1, 2) @ (inverse[:, :, None] * np.swapaxes(Q, 1, 2))
    dropped = np.where(span[:, :, None], 0.0, np.swapaxes(Q, 1, 2))
    least = float(length[span].min(initial=1.0))
    return rank, np.where(counts, values, 0.0), np.where(counts[:, :, None], T, 0.0), dropped, least


def why_not_pairs(clf: Any) -> str | None:
    """None if a classifier with factor coordinates has a table of pairs that describes it, else one sentence."""
    lost = PairTable.of(FactorCoordinates.of(clf)).lost
    if lost <= EXACT:
        return None
    return f"two of its subspaces almost share a direction (to {lost:.1g}), which inner products do not resolve"
