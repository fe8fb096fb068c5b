"""Where fitting starts: groups of a random sample, each described by the truncated PPCA of its members."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.sharing import SPIN_STEPS, careful_products
from .._threads.process import Guard, single_threaded_products
from ..mixture.factors import symmetric_eigh
from ..mixture.mfa import MFA
from .source import Source

__all__ = ["initial_mfa", "truncated_ppca"]

Array = NDArray[Any]

# Groups are found in at most this many directions: above, in a random projection, which keeps distances to some 10%.
MOST_DIRECTIONS = 1024
PROJECTED = 256
# Principal directions come from a symmetric matrix of at most this size, made from at most this many float64 values.
MOST_GRAM = 1024
GRAM_VALUES = 2**25
# Float64 copies of the sample are made in pieces of this many values.
CHUNK_VALUES = 2**22


def initial_mfa(
    source: Source, k: int, l: int, *, isotropic: bool, method: str, floor: float, rng: np.random.Generator
) -> MFA:
    """A mixture to start from: a seeded sample of the rows in k groups, each described by :func:`truncated_ppca`.

    The groups are those of k-means (``method="kmeans"``) or of the nearest of k random samples (``"random"``).
    A group that l factors describe without error (too few distinct samples) takes over the noise of the others.
    """
    X, weights = source.sample(rng, least=4 * k * (l + 1))
    w = np.ones(len(X)) if weights is None else weights
    labels, seeds = _group(_directions(X, rng), w, k, method, rng)
    d = X.shape[1]
    means, loadings, noise = np.empty((k, d)), np.zeros((k, d, l)), np.empty((k, d))
    mass, reliable = np.bincount(labels, w, minlength=k), np.zeros(k, np.bool_)
    for j in range(k):
        members = np.flatnonzero(labels == j)
        rows = members if len(members) else seeds[j : j + 1]
        means[j], loadings[j], noise[j] = truncated_ppca(X, rows, w, l, rng)
        reliable[j] = noise[j].sum() > 1e-10 * (noise[j].sum() + (loadings[j] ** 2).sum())
    loadings[~reliable] = 0.0
    share = mass * reliable
    noise[~reliable] = share @ noise / share.sum() if share.any() else source.survey.variance
    noise = np.maximum(noise.mean(axis=1) if isotropic else noise, floor)
    _fill_loadings(loadings, noise.reshape(k, -1).mean(axis=1), rng)
    mass = np.maximum(mass, w.sum() / len(w))  # an empty group gets the weight of one sample
    return MFA(mass / mass.sum(), means, loadings, noise)


def _fill_loadings(loadings: Array, noise: Array, rng: np.random.Generator) -> None:
    """Give columns of zeros, which EM would never leave, a random direction of a tenth of the noise's deviation."""
    for j, a in np.argwhere(~loadings.any(axis=1)):
        direction = rng.standard_normal(loadings.shape[1])
        loadings[j, :, a] = 0.1 * np.sqrt(noise[j]) * direction / np.linalg.norm(direction)


def truncated_ppca(
    X: Array, rows: Array, weights: Array, l: int, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Mean [d], loadings [d, l] and noise variances [d] of some rows of X [n, d] with weights [n].

    Probabilistic PCA (Tipping & Bishop 1999): A = U (Λ - σ²)^½ from the leading directions U and variances Λ, σ² the
    mean variance of the others; the noise variances are what is then left of each feature's variance, and their mean
    is σ². At most d - 1 directions are factors; unused columns are zero.
    """
    d = X.shape[1]
    w = weights[rows] / weights[rows].sum()
    mean = np.zeros(d)
    with single_threaded_products():
        for part in _chunks(len(rows), d):
            mean += w[part] @ X[rows[part]].astype(np.float64)
    U = _principal_directions(X, rows, w, mean, min(l, d - 1, len(rows) - 1), rng)
    variances, residual = np.zeros(U.shape[1]), np.zeros(d)
    with single_threaded_products():  # thin ones, for which threads that wait for a core are no gain
        for part in _chunks(len(rows), d):
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
        for part in _chunks(len(rows), d):
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


def _chunks(n: int, d: int) -> list[slice]:
    step = max(16, CHUNK_VALUES // d)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _directions(X: Array, rng: np.random.Generator) -> Array:
    """What groups are found in: X [m, d] in float32, centred and scaled; projected where d is large."""
    m, d = X.shape
    center, scale = np.zeros(d), 0.0
    for part in _chunks(m, d):
        center += X[part].sum(axis=0, dtype=np.float64) / m
    for part in _chunks(m, d):
        scale = max(scale, float(np.abs(X[part] - center).max()))
    project = d > MOST_DIRECTIONS
    P = rng.standard_normal((d, PROJECTED), dtype=np.float32) / np.float32(PROJECTED**0.5) if project else None
    Y = np.empty((m, d if P is None else PROJECTED), np.float32)
    for part in _chunks(m, d):
        R = ((X[part] - center) / (scale or 1.0)).astype(np.float32)
        Y[part] = R if P is None else R @ P
    return Y


def _group(Y: Array, weights: Array, k: int, method: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Group [m] of each row, and for each group a row [k] to stand for it if it stays empty."""
    seeds = rng.choice(len(Y), size=k, replace=False, p=weights / weights.sum())
    if method == "kmeans" and k > 1:
        return _kmeans(Y, weights, k, int(rng.integers(2**31 - 1))), seeds
    return _nearest(Y, Y[seeds]), seeds


def _kmeans(Y: Array, weights: Array, k: int, seed: int) -> Array:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    caught = warnings.catch_warnings()

    def quiet() -> None:
        caught.__enter__()
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than groups: some stay empty

    # One thread: scikit-learn adds up its threads' sums in the order in which they finish. Of BLAS, too: scikit-learn
    # restores what it found, and from several threads at once that may be another's limit.
    with Guard(quiet, partial(caught.__exit__, None, None, None)), single_threaded_products(scan=True, openmp=True):
        model = KMeans(k, n_init=1, max_iter=50, random_state=seed, copy_x=False)
        return np.asarray(model.fit(Y, sample_weight=weights).labels_, np.int64)


def _nearest(Y: Array, centers: Array) -> Array:
    """Index [m] of the nearest center."""
    norms = (centers**2).sum(axis=1)
    parts = _chunks(len(Y), max(Y.shape[1], len(centers)))
    return np.concatenate([(norms - 2.0 * (Y[part] @ centers.T)).argmin(axis=1) for part in parts])
