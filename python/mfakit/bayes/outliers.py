"""The outlier components of the asymmetric variant (appendix B.2): where they sit, and how they join a mixture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._arrays.gram import add_gram, gram, mirror
from .._arrays.rows import RowBlocks, check_finite_rows, to_numpy
from .._checks import check_integers
from .._threads.process import interruptible
from ..backends import get_arrays, get_backend
from ..mixture.factors import symmetric_eigh
from .parameters import OUTLIER

if TYPE_CHECKING:
    from ..mixture.mfa import MFA
    from .classifier import BayesClassifier

__all__ = ["outlier_extras", "outlier_step", "principal_step", "with_outlier"]

Array = NDArray[Any]

# Values in float64 of a block of rows; and features of all rows at a time, where there are fewer rows than features.
BLOCK_VALUES, PANEL = 2**22, 2048
# Rows of a matrix at a time in products with a vector.
ROWS = 512
# The largest matrix whose eigenvectors are computed as a whole, in a fraction of a second.
DENSE = 1024


def outlier_step(clf: BayesClassifier, X_train: Any, direction: int) -> tuple[Array, Array]:
    """The data's mean [d] and √λ · v [d] of its `direction`-th principal direction, from the best source there is."""
    d = clf.n_features
    check_integers({"direction": direction}, 1, d)
    if X_train is not None:
        return principal_step(X_train, direction, d)
    stored = clf.extras
    mean, step = stored.get(OUTLIER[0]), stored.get(OUTLIER[1])
    if mean is not None and step is not None and direction == int(stored.get(OUTLIER[2], 50)):
        return mean.astype(np.float64), step.astype(np.float64)
    return _mixture_step(clf, direction)


def outlier_extras(X_train: Any, direction: int, d: int) -> dict[str, Array]:
    """What a classifier of d features keeps of its training data for :func:`outlier_step`."""
    check_integers({"direction": direction}, 1, d)
    return dict(zip(OUTLIER, (*principal_step(X_train, direction, d), np.asarray(direction)), strict=True))


def principal_step(X: Any, direction: int, d: int | None = None) -> tuple[Array, Array]:
    """Mean [d] and √λ · v [d] of the `direction`-th principal direction of samples X [n, d], in blocks of rows or of
    features that are brought to the host.
    """
    rows = RowBlocks(X, d, "X_train")
    n, d = rows.shape
    if direction > min(n, d):
        raise ValueError(f"X_train has {n} samples, too few for principal direction {direction}")
    step = max(1, BLOCK_VALUES // d)
    mean = np.zeros(d)
    for i in range(0, n, step):
        block = _block(rows, i, i + step)
        check_finite_rows(block.sum(axis=1), block, i, rows.name)
        mean += block.sum(axis=0) / n
    if n < d:  # the Gram matrix is the smaller of the two; its eigenvectors give the covariance's
        products = np.zeros((n, n))
        for centered in _panels(rows, mean):
            add_gram(products, centered, 1.0 / n)
        weights = _eigenvector(products, direction)[1]
        vector = np.concatenate([centered.T @ weights for centered in _panels(rows, mean)])
        length = float(np.linalg.norm(vector))
        return mean, _oriented(vector / (length or 1.0)) * (length / np.sqrt(n))
    covariance = np.zeros((d, d))
    for i in range(0, n, step):
        centered = _block(rows, i, i + step) - mean
        add_gram(covariance, centered.T, 1.0 / n)
    value, vector = _eigenvector(covariance, direction)
    return mean, _oriented(vector) * np.sqrt(max(value, 0.0))


def _block(rows: RowBlocks, start: int, stop: int, columns: slice = slice(None)) -> Array:
    """Rows start:stop, or some columns of them, in float64, on the host."""
    if rows.device is None:
        return np.asarray(rows.block(start, stop, np.float64, columns))
    with get_arrays(get_backend("cuda", rows.device), rows.device).active():
        return to_numpy(rows.block(start, stop, np.float64, columns))


def _panels(rows: RowBlocks, mean: Array) -> Iterator[Array]:
    """All rows less their mean, some features at a time."""
    for first in range(0, len(mean), PANEL):
        columns = slice(first, first + PANEL)
        yield _block(rows, 0, len(rows), columns) - mean[columns]


def _mixture_step(clf: BayesClassifier, direction: int) -> tuple[Array, Array]:
    """The same from the classifier's own moments: Σ_c π_c Σ_k w_k (A Aᵀ + D + μ μᵀ) - mean meanᵀ."""
    from scipy.sparse.linalg import LinearOperator

    d = clf.n_features
    isotropic = all(m.is_isotropic for m in clf.mixtures)
    shares = [prior * m.weights for prior, m in zip(clf.priors, clf.mixtures, strict=True)]
    mean = sum(w @ m.means.astype(np.float64) for w, m in zip(shares, clf.mixtures, strict=True))
    noise = np.zeros(d)
    F = np.empty((sum(m.n_components * (m.n_factors + 1) for m in clf.mixtures), d))
    row = 0
    for w, m in zip(shares, clf.mixtures, strict=True):
        for j, root in enumerate(np.sqrt(w)):  # one by one: Ctrl-C is answered
            F[row : row + m.n_factors] = root * m.loadings[j].T
            F[row + m.n_factors] = root * (m.means[j] - mean)
            row += m.n_factors + 1
        noise += w @ np.broadcast_to(m.noise_variance.reshape(m.n_components, -1), m.means.shape)
    found = _common_noise_step(F, noise[0], direction) if isotropic and direction <= len(F) < d else None
    if found is not None:
        value, vector = found
    elif d <= DENSE:
        covariance = np.diag(noise)
        add_gram(covariance, F.T)
        value, vector = _eigenvector(covariance, direction)
    else:

        def times(v: Array) -> Array:
            panels = (F[i : i + ROWS] for i in range(0, len(F), ROWS))
            return np.asarray(sum((panel.T @ (panel @ v) for panel in panels), noise * v))

        value, vector = _lanczos(LinearOperator((d, d), matvec=times, dtype=np.float64), direction)
    return np.asarray(mean), _oriented(vector) * np.sqrt(value)


def _common_noise_step(F: Array, noise: float, direction: int) -> tuple[float, Array] | None:
    """Eigenvalue and eigenvector [d] of Fᵀ F + noise · I for the rows F [m, d], by the smaller matrix F Fᵀ; None where
    the rows do not span as many directions.
    """
    products = gram(F)
    vector = F.T @ _eigenvector(products, direction)[1]
    length = float(np.linalg.norm(vector))
    if not length**2 > len(F) * np.finfo(np.float64).eps * float(np.trace(products)):
        return None
    return length**2 + noise, vector / length


def _eigenvector(matrix: Array, direction: int) -> tuple[float, Array]:
    """The `direction`-th largest eigenvalue and its eigenvector of a symmetric matrix, given by its lower triangle."""
    from scipy.sparse.linalg import ArpackError

    if len(matrix) > DENSE and direction <= len(matrix) // 8:
        mirror(matrix)
        # A matrix of lower rank has no such direction that Lanczos' method could find.
        with suppress(ArpackError):
            return _lanczos(matrix, direction)
    index = len(matrix) - direction
    values, vectors = interruptible(symmetric_eigh, matrix, index, index)
    return float(values[0]), vectors[:, 0]


def _lanczos(matrix: Any, direction: int) -> tuple[float, Array]:
    """The same of a large matrix or operator: products with vectors, and Ctrl-C is answered between two of them."""
    from scipy.sparse.linalg import eigsh

    start = np.random.default_rng(0).standard_normal(matrix.shape[0])  # fixed: the same model gives the same step
    values, vectors = eigsh(matrix, k=direction, which="LA", v0=start)
    return float(values[0]), vectors[:, 0]


def _oriented(vector: Array) -> Array:
    """An eigenvector's sign is arbitrary: make the largest entry positive, so that runs and machines agree."""
    return np.asarray(vector * np.sign(vector[np.abs(vector).argmax()]))


def with_outlier(mfa: MFA, mean: Array, sigma: float) -> MFA:
    """The mixture with one more component: weight 1/(k+1), k components having any, mean [d], A = 0, noise σ²."""
    _, d, l = mfa.loadings.shape
    k = len(mfa.live)
    outlier = np.full((1,) if mfa.is_isotropic else (1, d), float(sigma) ** 2)
    return mfa.replace(
        weights=np.append(mfa.weights * (k / (k + 1)), 1 / (k + 1)),
        means=np.concatenate([mfa.means, mean[None].astype(mfa.means.dtype)]),
        loadings=np.concatenate([mfa.loadings, np.zeros((1, d, l), mfa.loadings.dtype)]),
        noise_variance=np.concatenate([mfa.noise_variance, outlier]),
    )
