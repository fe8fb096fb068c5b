"""The truncated PPCA of groups of rows, many groups at a time where they are small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.sharing import SPIN_STEPS, careful_products
from .._threads.process import single_threaded_products
from ..mixture.factors import symmetric_eigh
from .groups import CHUNK_VALUES, chunks

__all__ = ["truncated_ppca"]

Array = NDArray[Any]

# Principal directions of a large group come from a symmetric matrix of at most this size, made from at most this many
# float64 values.
MOST_GRAM = 1024
GRAM_VALUES = 2**25
# Groups are described together where their symmetric matrices are at most this large: all eigenvalues of smaller ones
# cost no more than the leading ones.
MOST_TOGETHER = 256


def truncated_ppca(
    X: Array, groups: list[Array], weights: Array, l: int, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Means [k, d], loadings [k, d, l] and noise variances [k, d] of groups of rows of X [m, d] with weights [m].

    Probabilistic PCA (Tipping & Bishop 1999): A = U (Λ - σ²)^½ from the leading directions U and variances Λ, σ² the
    mean variance of the others; the noise variances are what is then left of each feature's variance, and their mean
    is σ². At most d - 1 directions are factors; unused columns are zero.

    Parameters
    ----------
    X : [m, d]
    groups : list of [m_j]
        Indices of rows, at least one in each.
    weights : [m]
    l : int
    rng : numpy.random.Generator
        Chooses the rows that the directions of a large group come from.
    """
    k, d = len(groups), X.shape[1]
    sizes = np.array([len(rows) for rows in groups])
    means, loadings, noise = np.empty((k, d)), np.zeros((k, d, l)), np.empty((k, d))
    together = (np.minimum(sizes, d) <= MOST_TOGETHER) & (sizes * d <= CHUNK_VALUES)
    with single_threaded_products():  # small ones, for which threads that wait for a core are no gain
        for part in _alike(np.flatnonzero(together), sizes, d):
            means[part], loadings[part], noise[part] = _some(X, [groups[j] for j in part], weights, l)
    for j in np.flatnonzero(~together).tolist():
        means[j], loadings[j], noise[j] = _one(X, groups[j], weights, l, rng)
    return means, loadings, noise


def _alike(index: Array, sizes: Array, d: int) -> Iterator[Array]:
    """The groups `index`, those of similar size together, as many as CHUNK_VALUES values hold."""
    order = index[np.argsort(sizes[index], kind="stable")]
    first = 0
    for i in range(1, len(order) + 1):
        last = i == len(order)
        if last or (i + 1 - first) * sizes[order[i]] * d > CHUNK_VALUES or sizes[order[i]] > 2 * sizes[order[first]]:
            yield order[first:i]
            first = i


def _some(X: Array, groups: list[Array], weights: Array, l: int) -> tuple[Array, Array, Array]:
    """Means [c, d], loadings [c, d, l] and noise variances [c, d] of c groups; the smaller ones are filled up with rows
    of no weight.
    """
    sizes, d = np.array([len(rows) for rows in groups]), X.shape[1]
    s = int(sizes.max())
    index, w = np.zeros((len(groups), s), np.int64), np.zeros((len(groups), s))
    for i, rows in enumerate(groups):
        index[i, : len(rows)], w[i, : len(rows)] = rows, weights[rows]
    w /= w.sum(axis=1, keepdims=True)
    R = X[index].astype(np.float64)
    means = np.matmul(w[:, None, :], R)[:, 0]
    R -= means[:, None, :]
    R *= np.sqrt(w)[:, :, None]
    U = _directions_of(R, np.minimum(min(l, d - 1), sizes - 1))
    scores = R @ U
    variances = (scores**2).sum(axis=1)
    R -= scores @ np.swapaxes(U, 1, 2)
    residual = (R**2).sum(axis=1)
    found = U.any(axis=1).sum(axis=1)
    sigma2 = (residual.sum(axis=1) / (d - found))[:, None]
    loadings = np.zeros((len(groups), d, l))
    loadings[:, :, : U.shape[2]] = U * np.sqrt(np.maximum(variances - sigma2, 0.0))[:, None, :]
    return means, loadings, residual + np.matmul(U**2, np.minimum(variances, sigma2)[:, :, None])[:, :, 0]


def _directions_of(R: Array, counts: Array) -> Array:
    """Orthonormal leading directions [c, d, q] of weighted rows R [c, s, d], at most counts [c] of each; the columns of
    those that do not exist, or are rounding, are zero.
    """
    c, s, d = R.shape
    q = max(int(counts.max()), 0)
    if q == 0:
        return np.zeros((c, d, 0))
    S = np.swapaxes(R, 1, 2) @ R if d <= s else R @ np.swapaxes(R, 1, 2)
    trace = np.trace(S, axis1=1, axis2=2)[:, None, None]
    values, V = np.linalg.eigh(S / np.where(trace > 0, trace, 1.0))  # unit scale: LAPACK's own limits stay away
    values, V = values[:, ::-1][:, :q], V[:, :, ::-1][:, :, :q]
    U = V if d <= s else np.linalg.qr(np.swapaxes(R, 1, 2) @ V)[0]
    exists = (values > len(S[0]) * np.finfo(np.float64).eps) & (np.arange(q) < counts[:, None])
    return np.asarray(U * exists[:, None, :])


def _one(X: Array, rows: Array, weights: Array, l: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Mean [d], loadings [d, l] and noise variances [d] of one group, some rows at a time."""
    d = X.shape[1]
    w = weights[rows] / weights[rows].sum()
    mean = np.zeros(d)
    with single_threaded_products():
        for part in chunks(len(rows), d):
            mean += w[part] @ X[rows[part]].astype(np.float64)
    U = _principal_directions(X, rows, w, mean, min(l, d - 1, len(rows) - 1), rng)
    variances, residual = np.zeros(U.shape[1]), np.zeros(d)
    with single_threaded_products():  # thin ones, for which threads that wait for a core are no gain
        for part in chunks(len(rows), d):
            R = X[rows[part]] - mean
            scores = R @ U
            variances += w[part] @ scores**2
            residual += w[part] @ (R - scores @ U.T) ** 2
    sigma2 = residual.sum() / (d - U.shape[1])
    loadings = np.zeros((d, l))
    loadings[:, : U.shape[1]] = U * np.sqrt(np.maximum(variances - sigma2, 0.0))
    return mean, loadings, residual + U**2 @ np.minimum(variances, sigma2)


def _principal_directions(X: Array, rows: Array, w: Array, mean: Array, q: int, rng: np.random.Generator) -> Array:
    """Orthonormal leading directions [d, ≤ q] of some rows.

    Those of their covariance [d, d] or, where there are fewer rows, of their Gram matrix [m, m]; where both are large,
    of a random part of the rows.
    """
    d = X.shape[1]
    if q <= 0:
        return np.zeros((d, 0))
    most = max(min(MOST_GRAM, GRAM_VALUES // d), 4 * (q + 1))
    if d > MOST_GRAM and len(rows) > most:
        some = np.sort(rng.choice(len(rows), most, replace=False))
        rows, w = rows[some], w[some]
    if d <= len(rows):
        S = np.zeros((d, d))
        for part in chunks(len(rows), d):
            R = np.sqrt(w[part])[:, None] * (X[rows[part]] - mean)
            S += R.T @ R
        return _leading(S, q)
    R = np.sqrt(w)[:, None] * (X[rows] - mean)
    with careful_products(R.size * len(R), SPIN_STEPS):
        S = R @ R.T
    with single_threaded_products():
        return np.asarray(np.linalg.qr(R.T @ _leading(S, q))[0])


def _leading(S: Array, q: int) -> Array:
    """Eigenvectors [m, ≤ q] of the largest eigenvalues of S [m, m], largest first, without those that are rounding."""
    m = len(S)
    scale = float(np.trace(S))
    if not scale > 0:
        return np.zeros((m, 0))
    values, vectors = symmetric_eigh(S / scale, m - q, m - 1)  # unit scale: LAPACK's own limits stay away
    return np.asarray(vectors[:, values > m * np.finfo(np.float64).eps][:, ::-1])
