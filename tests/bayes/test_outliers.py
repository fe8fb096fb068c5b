"""The outlier's mean from training samples: what they may be."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.sparse.linalg import svds
from support import close, random_mfa

import mfakit
from mfakit.bayes.outliers import principal_step


def _classifier() -> mfakit.BayesClassifier:
    return mfakit.BayesClassifier([random_mfa(2, 12, 2, seed=seed) for seed in (0, 1)])


def test_a_row_with_nan_is_named() -> None:
    X = np.random.default_rng(0).normal(size=(30, 12))
    X[17, 3] = np.nan
    with pytest.raises(ValueError, match=r"X_train has NaN or inf, first in row 17"):
        _classifier().asymmetric(X, direction=2)


@pytest.mark.parametrize("n", [5, 30])
def test_equal_rows_have_no_spread(n: int) -> None:
    """The outlier is then at their mean, whichever of the two covariances is decomposed."""
    clf = _classifier().asymmetric(np.full((n, 12), 0.25), direction=2)
    for mixture in clf.mixtures:
        np.testing.assert_allclose(mixture.means[-1], 0.25, atol=1e-7)


def test_fewer_samples_than_features_are_never_in_memory_twice() -> None:
    n, d, direction = 400, 60_000, 3
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(n, 6)) * [9, 7, 5, 3, 2, 1] @ rng.normal(size=(6, d))).astype(np.float32)
    tracemalloc.start()
    try:
        mean, step = principal_step(X, direction)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes  # in float64 all of X would take twice that
    centered = X - X.mean(axis=0, dtype=np.float64)
    _, sizes, directions = svds(centered, k=direction, v0=np.ones(n))
    close(mean, X.mean(axis=0, dtype=np.float64), rtol=1e-12, atol=1e-12)
    expected = directions[sizes.argmin()] * sizes.min() / np.sqrt(n)
    expected *= np.sign(expected[np.abs(expected).argmax()])
    close(step, expected, rtol=1e-8, atol=1e-8)
