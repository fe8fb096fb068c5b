"""Groups of rows that components start from, found along principal directions: by k-means, or the nearest of k rows."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._threads.process import Guard, single_threaded_products

__all__ = ["chunks", "group_rows"]

Array = NDArray[Any]

# Groups are found along at most this many principal directions: of images they hold most of the variance, and what
# k-means costs no longer grows with d.
MOST_DIRECTIONS = 64
# The directions come from a random part of the rows, of at most this many values.
DIRECTION_VALUES = 2**22
# Float64 copies of the sample are made in pieces of this many values.
CHUNK_VALUES = 2**22


def group_rows(X: Array, weights: Array, k: int, method: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Group [m] of each row of X [m, d], and for each group a row [k] to stand for it if it stays empty.

    Parameters
    ----------
    X : [m, d]
    weights : [m]
        Of the rows, positive.
    k : int
    method : {"kmeans", "random"}
    rng : numpy.random.Generator
    """
    Y = _coordinates(X, rng)
    seeds = rng.choice(len(Y), size=k, replace=False, p=weights / weights.sum())
    if method == "kmeans" and k > 1:
        return _kmeans(Y, weights, k, int(rng.integers(2**31 - 1))), seeds
    return _nearest(Y, Y[seeds]), seeds


def chunks(n: int, d: int) -> list[slice]:
    """n rows of d features, some at a time."""
    step = max(16, CHUNK_VALUES // d)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _coordinates(X: Array, rng: np.random.Generator) -> Array:
    """X [m, d] in float32, centred and scaled; where d is large, along its leading principal directions."""
    m, d = X.shape
    center, scale = np.zeros(d), 0.0
    for part in chunks(m, d):
        center += X[part].sum(axis=0, dtype=np.float64) / m
    for part in chunks(m, d):
        scale = max(scale, float(np.abs(X[part] - center).max()))

    def scaled(rows: Any) -> Array:
        return np.asarray((X[rows] - center) / (scale or 1.0), np.float32)

    if d <= MOST_DIRECTIONS:
        return np.concatenate([scaled(part) for part in chunks(m, d)])
    most = max(4 * MOST_DIRECTIONS, DIRECTION_VALUES // d)
    some = np.sort(rng.choice(m, most, replace=False)) if m > most else slice(None)
    directions = _principal_directions(scaled(some), int(rng.integers(2**31 - 1)))
    return np.concatenate([scaled(part) @ directions for part in chunks(m, d)])


def _principal_directions(R: Array, seed: int) -> Array:
    """Leading right singular vectors [d, ≤ MOST_DIRECTIONS] of R [m, d], by a randomized SVD (Halko, Martinsson & Tropp
    2011).
    """
    from sklearn.utils.extmath import randomized_svd

    with single_threaded_products(scan=True):
        count = min(MOST_DIRECTIONS, *R.shape)
        found = randomized_svd(R, count, n_iter=2, power_iteration_normalizer="QR", random_state=seed)[2]
    return np.ascontiguousarray(found.T)


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
    parts = chunks(len(Y), max(Y.shape[1], len(centers)))
    return np.concatenate([(norms - 2.0 * (Y[part] @ centers.T)).argmin(axis=1) for part in parts])
