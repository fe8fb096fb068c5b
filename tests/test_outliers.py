"""The outlier's mean from training samples: what they may be."""

from __future__ import annotations

import numpy as np
import pytest
from support import random_mfa

import mfakit


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
