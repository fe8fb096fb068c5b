"""Samples of which only some features are known: the density of those, and what it says of the factors.

With S the singular values of D^-½ A = U S Vᵀ, g = (1 + S²)^-½, and W = S g Uᵀ D^-½ and Z = V g of
:mod:`mfakit.mixture.factors`, let O be the features that are known and B = W_O D_O^½ [l, O]. Then, for r = x_O - μ_O,

    N = g² + B Bᵀ [l, l],  y = W_O r,  E[z | x_O] = Z N⁻¹ y,  Cov[z | x_O] = Z N⁻¹ Zᵀ
    log det(A_O A_Oᵀ + D_O) = log det N - 2 Σ log g + Σ_O log D
    ‖r‖² in that metric = ‖r - A_O z‖²_{D_O⁻¹} + ‖z‖²  at  z = E[z | x_O], where nothing large cancels.

N is the identity where all is known, and the sum over O is a product of masks with B's products of pairs of rows: the N
of any number of patterns cost one product for each component. Where a pattern leaves a direction of the factors nearly
unknown, N holds too few digits of it, and the loadings of the known features are factorized afresh.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._threads.process import errstate, keeps_errstate
from .factors import whiten

if TYPE_CHECKING:
    from .mfa import MFA

__all__ = ["Posterior", "distinct", "posteriors"]

Array = NDArray[Any]

# The smallest eigenvalue of N, as a share of the largest, that still has half of float64's digits.
WELL_CONDITIONED = 1e-7


class Posterior(NamedTuple):
    """What one component makes of some samples, in float64.

    Attributes
    ----------
    log_prob : [n]
        log (weight_k p_k(x_O)), nats.
    z : [n, l]
        E[z | x_O].
    half : [u, l, l]
        H of each pattern, with Cov[z | x_O] = H Hᵀ.
    pattern : int [n]
        Which of the patterns a sample has.
    patterns : bool [u, d]
        Their known features.
    """

    log_prob: Array
    z: Array
    half: Array
    pattern: Array
    patterns: Array


@keeps_errstate
def distinct(seen: Array) -> tuple[Array, Array]:
    """The distinct rows of a mask [n, d], and the number of each row's [n]."""
    _, first, number = np.unique(np.packbits(seen, axis=1), axis=0, return_index=True, return_inverse=True)
    return seen[first], number.ravel()


def posteriors(mfa: MFA, X: Array, seen: Array) -> Iterator[Posterior]:
    """Of each component in turn, for samples X [n, d] of which the features `seen` [n, d] are known, one at least in
    each; float64.
    """
    patterns, number = distinct(seen)
    known = patterns.astype(np.float64)
    for j in range(mfa.n_components):
        yield _of_component(mfa, j, X, seen, patterns, known, number)


@keeps_errstate
def _of_component(
    mfa: MFA, j: int, X: Array, seen: Array, patterns: Array, known: Array, number: Array
) -> Posterior:  # fmt: skip
    l, noise = mfa.n_factors, np.broadcast_to(mfa.noise_variance[j], mfa.n_features)
    A = mfa.loadings[j].astype(np.float64)
    with errstate(over="ignore", divide="ignore"):
        residual = X - mfa.means[j]
        residual[~seen] = 0.0
        log_det = known @ np.log(noise)
        half = np.zeros((len(known), l, l))
        z = np.zeros((len(X), l))
        if l:
            half, F, more, ill = _of_patterns(mfa, j, known, noise)
            log_det += more
            z = np.matmul(half[number], np.matmul(F[number], (residual @ mfa.factors.whitened[j].T)[:, :, None]))[
                :, :, 0
            ]
            for u in np.flatnonzero(ill):
                rows, some = number == u, patterns[u]
                W, Z, whole = whiten(A[None, some], noise[None, some], np.array([True]), j)
                half[u], log_det[u] = Z[0], whole[0]
                z[rows] = (residual[np.ix_(rows, some)] @ W[0].T) @ Z[0].T
        left = z @ A.T
        left *= seen
        np.subtract(residual, left, out=left)
        left /= np.sqrt(noise)
        size = np.einsum("nd,nd->n", left, left) + np.einsum("nl,nl->n", z, z)
        norm = np.log(mfa.weights[j]) - 0.5 * (known.sum(axis=1) * np.log(2 * np.pi) + log_det)
    return Posterior(norm[number] - 0.5 * size, z, half, number, patterns)


def _of_patterns(mfa: MFA, j: int, known: Array, noise: Array) -> tuple[Array, Array, Array, Array]:
    """Of patterns `known` [u, d]: H = Z N^-½ and the transpose of N^-½ [u, l, l], log det N - 2 Σ log g [u], and which
    have an N that is conditioned too badly [u].
    """
    l, Z = mfa.n_factors, mfa.factors.latent_map[j]
    gain = np.linalg.norm(Z, axis=0)
    B = mfa.factors.whitened[j] * np.sqrt(noise)
    a, b = np.tril_indices(l)
    N = np.empty((len(known), l, l))
    N[:, a, b] = N[:, b, a] = known @ (B[a] * B[b]).T
    N[:, np.arange(l), np.arange(l)] += gain**2
    values, V = np.linalg.eigh(N)
    ill = values[:, 0] < WELL_CONDITIONED * values[:, -1]
    values = np.maximum(values, np.finfo(np.float64).tiny)
    F = np.swapaxes(V, 1, 2) / np.sqrt(values)[:, :, None]
    return Z @ np.swapaxes(F, 1, 2), F, np.log(values).sum(axis=1) - 2.0 * np.log(gain).sum(), ill
