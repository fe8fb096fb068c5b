"""Samples of which only some features are known: the density of those, and what it says of the factors.

With S the singular values of D^-½ A = U S Vᵀ, g = (1 + S²)^-½, and W = S g Uᵀ D^-½ and Z = V g of
:mod:`mfakit.mixture.factors`, let O be the features that are known and B = W_O D_O^½ [l, O]. Then, for r = x_O - μ_O,

    N = g² + B Bᵀ [l, l],  y = W_O r,  E[z | x_O] = Z N⁻¹ y,  Cov[z | x_O] = Z N⁻¹ Zᵀ
    log det(A_O A_Oᵀ + D_O) = log det N - 2 Σ log g + Σ_O log D
    ‖r‖² in that metric = ‖r‖²_{D_O⁻¹} - yᵀ N⁻¹ y
                        = ‖r - A_O z‖²_{D_O⁻¹} + ‖z‖²  at  z = E[z | x_O], where nothing large cancels.

N is the identity where all is known. Steps of a block are those of :mod:`mfakit.mixture.evaluator`: products of all
samples with all components, by the first of the two forms; which components rounding could lift to within 40 nats of a
sample's best; those again by the second form. Sums over O are products with the masks of the patterns. Where a pattern
leaves a direction of the factors nearly unknown, N holds too few digits of it, and the loadings of the known features
are factorized afresh.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._threads.process import errstate, keeps_errstate
from ..backends.numpy_ops import CUTOFF_NATS
from .factors import Factors, component_parts, whiten

if TYPE_CHECKING:
    from .mfa import MFA

__all__ = ["Evidence", "Posterior", "distinct", "evidence"]

Array = NDArray[Any]

# 1 / ‖N⁻¹‖ at which N still has half of float64's digits of every direction; its largest eigenvalue is about 1.
WELL_CONDITIONED = 1e-7
# Half of what a sum over d may lose, relative to the size of its terms, in units of √d + l; as of the dense product.
SLACK = 4 * float(np.finfo(np.float64).eps)


class Posterior(NamedTuple):
    """What a component makes of the samples that it matters to, in float64.

    Attributes
    ----------
    component : int
    rows : int [m]
        These samples' numbers, ascending.
    z : [m, l]
        E[z | x_O].
    half : [v, l, l]
        H of each pattern that they have, with Cov[z | x_O] = H Hᵀ.
    pattern : int [m]
        Which of the patterns a sample has.
    patterns : bool [v, d]
        Their known features.
    """

    component: int
    rows: Array
    z: Array
    half: Array
    pattern: Array
    patterns: Array


class Evidence(NamedTuple):
    """What a mixture makes of some samples: log (weight_k p_k(x_O)) [n, k], nats, to rounding where a component
    matters, and the posteriors of the components that matter to any.
    """

    log_prob: Array
    posteriors: list[Posterior]


class _Products(NamedTuple):
    """Of samples and components: `log_prob` [n, k], and what rounding may have done to it, `error` [n, k]. Of patterns
    and components: the lower triangles R [t, u, k] with N⁻¹ = Rᵀ R, `roots`; the constant of the log-density, `norm`
    [u, k]; and which N are conditioned too badly, `ill` [u, k].
    """

    log_prob: Array
    error: Array
    roots: Array
    norm: Array
    ill: Array


@keeps_errstate
def distinct(seen: Array) -> tuple[Array, Array]:
    """The distinct rows of a mask [n, d], and the number of each row's [n]."""
    _, first, number = np.unique(np.packbits(seen, axis=1), axis=0, return_index=True, return_inverse=True)
    return seen[first], number.ravel()


@keeps_errstate
def evidence(mfa: MFA, X: Array, seen: Array) -> Evidence:
    """Of samples X [n, d] of which the features `seen` [n, d] are known, one at least in each; float64."""
    patterns, number = distinct(seen)
    with errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        found = products(mfa, X, seen, patterns, number)
        log_prob, error = found.log_prob, found.error
        least = np.fmax.reduce(log_prob - error, axis=1, keepdims=True, initial=-np.inf) - CUTOFF_NATS
        keep = ~(log_prob + error < least) & (mfa.weights > 0)  # NaN is kept
        posteriors = [
            _refine(mfa, j, X, seen, patterns, number, np.flatnonzero(keep[:, j]), found)
            for j in np.flatnonzero(keep.any(axis=0)).tolist()
        ]
    return Evidence(log_prob, posteriors)


def products(mfa: MFA, X: Array, seen: Array, patterns: Array, number: Array) -> _Products:
    """The first form of the module's log-density, of all samples and components."""
    factors = mfa.factors
    k, l, d = factors.shape
    known = patterns.astype(np.float64)
    C = X - factors.center
    C[~seen] = 0.0
    squares = C * C
    parts = [
        _products_of(factors, part, C, squares, known, number) for part in component_parts(k, d * (l * (l + 1) // 2))
    ]
    log_prob, error, roots, norm, ill = (np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True))
    log_weight = np.log(mfa.weights)
    return _Products(log_prob + log_weight, error, roots, norm + log_weight, ill)


def _products_of(factors: Factors, part: slice, C: Array, squares: Array, known: Array, number: Array) -> _Products:
    """Those of some components, without their weights; C [n, d] is X - center, 0 where nothing is known."""
    l, d = factors.shape[1:]
    means, gain = factors.centered_means[part].T, _gain(factors, part)
    noise = np.broadcast_to(factors.noise[part].T, means.shape)
    W = np.ascontiguousarray(np.moveaxis(factors.whitened[part], 0, 2))  # [l, d, c]
    sizes = squares @ (1.0 / noise) + (known @ (means**2 / noise))[number]
    quad = sizes - 2.0 * (C @ (means / noise))
    roots, log_det = inverse_roots(_capacitance(W * np.sqrt(noise), gain, known))
    y, shift = C @ W, known @ (W * means)
    for a in range(l):
        y[a] -= shift[a][number]
        w = np.zeros_like(quad)
        for b, root in enumerate(roots[_row(a)]):
            w += root[number] * y[b]
        quad -= w**2
    log_det += known @ np.log(noise) - 2.0 * np.log(gain).sum(axis=0)
    norm = -0.5 * (known.sum(axis=1, keepdims=True) * np.log(2 * np.pi) + log_det)
    spread = np.einsum("tuc,tuc->uc", roots, roots)
    ill = ~(spread < 1.0 / WELL_CONDITIONED)
    error = SLACK * (np.sqrt(d) + l) * sizes * ((1.0 + np.sqrt(l * spread)) ** 2)[number]
    error[ill[number]] = np.inf
    return _Products(norm[number] - 0.5 * np.maximum(quad, 0.0), error, roots, norm, ill)


def _gain(factors: Factors, part: slice) -> Array:
    """g [l, c] of the module, 1 where loadings have no direction."""
    return np.asarray(np.linalg.norm(factors.latent_map[part], axis=1)).T


@cache
def _triangle(l: int) -> tuple[Array, Array]:
    """Rows and columns [t] of a lower triangle, row by row."""
    return np.tril_indices(l)


def _row(a: int) -> slice:
    """Where row a of a lower triangle is, of a + 1 entries."""
    return slice(a * (a + 1) // 2, (a + 1) * (a + 2) // 2)


def _capacitance(B: Array, gain: Array, known: Array) -> Array:
    """N of the patterns `known` [u, d], lower triangles [t, u, c], from W D^½ [l, d, c] and g [l, c]."""
    a, b = _triangle(len(B))
    N: Array = known @ (B[a] * B[b])
    N[a == b] += gain[:, None, :] ** 2
    return N


def inverse_roots(N: Array) -> tuple[Array, Array]:
    """R with N⁻¹ = Rᵀ R and log det N [...], of positive definite N, all at once; lower triangles [t, ...], row by row.
    N is overwritten by its Cholesky factors.
    """
    R, log_det = np.empty_like(N), np.zeros(N.shape[1:])
    for a in range(int(np.sqrt(2 * len(N)))):
        own, inverse = N[_row(a)], R[_row(a)]
        for b in range(a + 1):
            other = N[_row(b)]
            own[b] -= np.einsum("t...,t...->...", own[:b], other[:b])
            if b < a:
                own[b] /= other[b]
        pivot = np.maximum(own[a], np.finfo(np.float64).tiny)
        log_det += np.log(pivot)
        own[a] = np.sqrt(pivot)
        inverse[:a], inverse[a] = 0.0, 1.0
        for b in range(a):
            inverse[: b + 1] -= own[b] * R[_row(b)]
        inverse /= own[a]
    return R, log_det


def _refine(
    mfa: MFA, j: int, X: Array, seen: Array, patterns: Array, number: Array, rows: Array, found: _Products
) -> Posterior:  # fmt: skip
    """Component j's posterior of the samples `rows`, whose log-densities in `found` become those of the second form."""
    factors = mfa.factors
    A, Z = mfa.loadings[j].astype(np.float64), factors.latent_map[j]
    noise = np.broadcast_to(factors.noise[j], mfa.n_features)
    some, own = np.unique(number[rows], return_inverse=True)
    R, norm = np.zeros((len(some), len(Z), len(Z))), found.norm[some, j]
    a, b = _triangle(len(Z))
    R[:, a, b] = found.roots[:, some, j].T
    half = Z @ np.swapaxes(R, 1, 2)
    known = seen[rows]
    residual = X[rows] - factors.means[j]
    residual[~known] = 0.0
    z = np.matmul(half[own], np.matmul(R[own], (residual @ factors.whitened[j].T)[:, :, None]))[:, :, 0]
    for v in np.flatnonzero(found.ill[some, j]):
        at, features = np.flatnonzero(own == v), patterns[some[v]]
        W, H, log_det = whiten(A[None, features], noise[None, features], np.array([True]), j)
        half[v] = H[0]
        norm[v] = np.log(mfa.weights[j]) - 0.5 * (features.sum() * np.log(2 * np.pi) + log_det[0])
        z[at] = (residual[np.ix_(at, features)] @ W[0].T) @ H[0].T
    residual -= z @ A.T
    residual *= known
    residual /= np.sqrt(noise)
    size = np.einsum("nd,nd->n", residual, residual) + np.einsum("nl,nl->n", z, z)
    overflow = np.flatnonzero(np.isnan(size))  # unless inf was let in
    size[overflow[np.isfinite(np.where(known, X[rows], 0.0)[overflow]).all(axis=1)]] = np.inf
    found.log_prob[rows, j] = norm[own] - 0.5 * size
    return Posterior(j, rows, z, half, own, patterns[some])
