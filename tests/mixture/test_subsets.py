"""Marginal and conditional mixtures, against dense Gaussians and against the rule p(x) = p(x_S) p(x_T | x_S)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import close, parameters, random_mfa

import mfakit
from mfakit import _reference

Array = NDArray[Any]

SEEN = [7, 0, 3]
REST = [1, 2, 4, 5, 6, 8, 9, 10, 11]


@pytest.fixture
def mfa(noise: str) -> mfakit.MFA:
    return random_mfa(noise=noise)


def test_the_marginal_is_the_dense_mixtures(mfa: mfakit.MFA) -> None:
    weights, means, covariances = mfa.dense()
    part = mfa.marginal(SEEN)
    np.testing.assert_array_equal(part.dense()[0], weights)
    close(part.dense()[1], means[:, SEEN], rtol=1e-14)
    close(part.dense()[2], covariances[np.ix_(range(4), SEEN, SEEN)], rtol=1e-14)


def test_the_conditional_is_the_dense_mixtures(mfa: mfakit.MFA) -> None:
    v = mfa.sample(1, rng=3, dtype=np.float64)[0][0, SEEN]
    _, means, covariances = mfa.dense()
    given = mfa.conditional(SEEN, v)
    seen = _reference.component_log_prob(v[None, :], *parameters(mfa.marginal(SEEN)))[0]
    close(given.weights, np.exp(seen - np.logaddexp.reduce(seen)), rtol=1e-10, atol=1e-14)
    for j in range(4):
        C = covariances[j]
        gain = np.linalg.solve(C[np.ix_(SEEN, SEEN)], C[np.ix_(SEEN, REST)]).T
        close(given.means[j], means[j, REST] + gain @ (v - means[j, SEEN]), rtol=1e-10, atol=1e-12)
        close(given.dense()[2][j], C[np.ix_(REST, REST)] - gain @ C[np.ix_(SEEN, REST)], rtol=1e-10, atol=1e-12)


def test_marginal_times_conditional_is_the_joint(mfa: mfakit.MFA) -> None:
    for x in mfa.sample(5, rng=1, dtype=np.float64)[0]:
        parts = mfa.marginal(SEEN).log_prob(x[None, SEEN]) + mfa.conditional(SEEN, x[SEEN]).log_prob(x[None, REST])
        close(parts, mfa.log_prob(x[None, :]), rtol=1e-10)


def test_the_mean_of_the_conditional_is_what_impute_fills_in(mfa: mfakit.MFA) -> None:
    X = mfa.sample(4, rng=2, dtype=np.float64)[0]
    mask = np.ones(12, bool)
    mask[SEEN] = False
    filled = mfa.impute(X, mask)
    for x, row in zip(X, filled, strict=True):
        given = mfa.conditional(SEEN, x[SEEN])
        close(given.weights @ given.means, row[REST], rtol=1e-10, atol=1e-12)


def test_far_values_choose_the_nearest_component() -> None:
    mfa = mfakit.MFA([0.5, 0.5, 0.0], [[-1.0, 0.0], [1.0, 5.0], [2.0, 9.0]], np.zeros((3, 2, 1)), 0.01)
    np.testing.assert_array_equal(mfa.conditional([0], [1e6]).weights, [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(mfa.conditional([0], [1e6]).means[:, 0], [0.0, 5.0, 9.0])
    with pytest.raises(ValueError, match="so far from every component"):
        mfa.conditional([0], [1e300])


def test_features_are_indices_or_a_mask() -> None:
    mfa = random_mfa(2, 4, 1)
    mask = np.array([True, False, True, False])
    for features in ([0, 2], np.array([0, -2]), mask, mask.tolist()):
        np.testing.assert_array_equal(mfa.marginal(features).means, mfa.means[:, [0, 2]])
        np.testing.assert_array_equal(mfa.conditional(features, [1, 2]).noise_variance, mfa.noise_variance)
    assert mfa.marginal(3).n_features == 1
    assert mfa.marginal([3, 2, 1, 0]).means[0, 0] == mfa.means[0, 3]


def test_the_marginal_keeps_float32() -> None:
    mfa = random_mfa().replace(means=np.ones((4, 12), np.float32))
    assert mfa.marginal([1]).means.dtype == np.float32
    assert mfa.conditional([1], [0.0]).means.dtype == np.float64


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "at least one feature, got none"),
        (np.zeros(12, bool), "at least one feature, got none"),
        ([0, 12], "from -12 to 11"),
        ([-13], "from -12 to 11"),
        ([1, -11], "distinct, but 1 is given"),
        ([True, False], r"bool \[12\]"),
        ([0.5], "must be integers"),
        ([[0, 1]], "must be integers"),
    ],
)
def test_features_that_are_none(features: Any, message: str) -> None:
    mfa = random_mfa()
    with pytest.raises(ValueError, match=message):
        mfa.marginal(features)
    with pytest.raises(ValueError, match=message):
        mfa.conditional(features, [0.0])


def test_values_that_do_not_fit() -> None:
    mfa = random_mfa()
    with pytest.raises(ValueError, match="leave at least one feature out, got all 12"):
        mfa.conditional(np.arange(12), np.zeros(12))
    with pytest.raises(ValueError, match=r"values must be \[2\], one per feature in features, got shape \(3,\)"):
        mfa.conditional([0, 1], [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="NaN or inf"):
        mfa.conditional([0], [np.nan])
    with pytest.raises(TypeError, match="real numbers"):
        mfa.conditional([0], ["a"])
