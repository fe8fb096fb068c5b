"""The default noise floor: relative to the data's variance, chosen by held-out samples, and said where it decides."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from support import close, parameters, random_mfa

import mfakit
from mfakit.fit import MixtureOfFactorAnalyzers, Source

Array = NDArray[Any]


def data(n: int = 200, flat: int = 2) -> Array:
    """Samples [n, 6 + flat] whose last features are constant."""
    X = random_mfa(2, 6, 1, spread=2.0).sample(n, rng=0, dtype=np.float64)[0]
    return np.hstack([X, np.full((n, flat), 3.0)])


def fit(X: Any, **options: Any) -> MixtureOfFactorAnalyzers:
    """A fit of which nobody expects convergence, nor features that vary."""
    est = MixtureOfFactorAnalyzers(2, 1, **{"random_state": 0, "max_iter": 20, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", ".* features have no variance", UserWarning)
        return est.fit(X)


@pytest.mark.parametrize(("noise", "floor"), [("isotropic", 1e-6), ("diagonal", 2e-4)])
def test_the_default_is_a_share_of_the_mean_variance(noise: str, floor: float) -> None:
    X = data()
    default, explicit = fit(X, noise=noise), fit(X, noise=noise, noise_floor=floor)
    for left, right in zip(parameters(default.mfa_), parameters(explicit.mfa_), strict=True):
        np.testing.assert_array_equal(left, right)
    if noise == "diagonal":
        np.testing.assert_allclose(default.mfa_.noise_variance[:, 6:], floor * X.var(axis=0).mean(), rtol=1e-9)


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60])
def test_other_units_give_the_same_mixture_in_those_units(noise: str, unit: float) -> None:
    X = data()
    one, other = fit(X, noise=noise), fit(X * unit, noise=noise)
    close(other.mfa_.means, unit * one.mfa_.means, rtol=1e-9)
    close(other.mfa_.noise_variance, unit**2 * one.mfa_.noise_variance, rtol=1e-9)


def test_features_that_the_floor_describes_are_counted_in_a_warning() -> None:
    X = data()
    X[:, 5] = 1.0 + 1e-6 * X[:, 5]
    est = MixtureOfFactorAnalyzers(2, 1, noise="diagonal", random_state=0, max_iter=500)
    with pytest.warns(UserWarning, match="^3 of 8 features have no variance, or less than the noise floor"):
        est.fit(X)
    with pytest.warns(UserWarning, match="^3 of 8 features have no variance, or less than the noise floor"):
        est.fit_blocks([X[:30], X[30:]])
    with pytest.warns(UserWarning, match="^2 of 8 features"):  # a floor that was chosen may be above some variances
        est.set_params(noise_floor=1e-3).fit(X)
    est.fit(X[:, :5])  # no warning
    est.set_params(noise="isotropic").fit(X)  # its variance is a mean over features, which no single one decides


def test_rows_of_weight_zero_do_not_make_a_feature_vary() -> None:
    X, w = data(), np.ones(200)
    X[::10, 6] = 7.0
    w[::10] = 0.0
    assert (Source.from_array(X, w).feature_variances()[6:] == 0).all()
    assert (Source.from_array(X).feature_variances()[6:] > 0).tolist() == [True, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_feature_variances_are_numpys(dtype: Any) -> None:
    X, w = (data() * np.arange(1, 9) + 1e3).astype(dtype), np.random.default_rng(0).uniform(0, 2, 200)
    X64 = X.astype(np.float64)
    expected = np.average((X64 - np.average(X64, axis=0, weights=w)) ** 2, axis=0, weights=w)
    blocks = Source.from_blocks([(X[:7], w[:7]), (X[7:], w[7:])], weighted=True)
    for source in (Source.from_array(X, w), blocks):
        close(source.feature_variances(), expected, rtol=1e-9, atol=1e-9)
        assert (source.feature_variances()[6:] == 0).all()


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("digit", [0, 3, 8])
def test_held_out_digits_are_within_two_percent_of_the_best_floors(digit: int) -> None:
    X, _, held_out, _ = mfakit.datasets.load_mnist(classes=(digit,))
    scores: dict[float | None, float] = {}
    for floor in (None, 1e-4, 1.5e-4, 3e-4):  # the best is among them, see mfakit.fit.noise_floor
        est = MixtureOfFactorAnalyzers(25, 6, noise="diagonal", noise_floor=floor, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores[floor] = est.fit(X).score(held_out)
    assert scores[None] >= 0.98 * max(scores.values())
