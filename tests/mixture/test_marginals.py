"""Densities of samples with missing features: those of the mixtures of what is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import close, random_mfa

import mfakit
from mfakit.mixture import marginals, observed

Array = NDArray[Any]


def with_gaps(X: Array) -> Array:
    """A pattern of its own for most rows; the first rows are complete, and one has a single feature."""
    missing = np.random.default_rng(3).random(X.shape) < 0.5
    missing[:2] = False
    missing[2, 1:], missing[2, 0] = True, False
    missing[:, 0] &= ~missing.all(axis=1)
    return np.where(missing, np.nan, X)


def one_by_one(mfa: mfakit.MFA, X: Array, name: str) -> Array:
    found = [getattr(mfa.marginal(~np.isnan(x)), name)(x[None, ~np.isnan(x)]) for x in X.astype(np.float64)]
    return np.concatenate(found)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("sigma", [0.3, 1e-4, 1e-8])
@pytest.mark.parametrize(("k", "d", "l"), [(3, 7, 2), (1, 5, 0), (2, 3, 5), (2, 40, 4)])
def test_every_row_is_the_mixture_of_its_features(noise: str, sigma: float, k: int, d: int, l: int) -> None:
    """Also where noise is small and loadings depend on each other, and a pattern leaves directions of them open."""
    mfa = random_mfa(k, d, l, sigma=sigma, noise=noise, spread=0.5)
    if l > 1:
        loadings = np.array(mfa.loadings)
        loadings[0, :, 1] = loadings[0, :, 0]
        mfa = mfa.replace(loadings=loadings)
    X = with_gaps(mfa.sample(25, rng=0, dtype=np.float64)[0])
    tolerance = {"rtol": 1e-9, "atol": 1e-9 if sigma > 1e-5 else 1e-6}
    close(mfa.log_prob(X, missing="marginal"), one_by_one(mfa, X, "log_prob"), **tolerance)
    close(mfa.responsibilities(X, missing="marginal"), one_by_one(mfa, X, "responsibilities"), **tolerance)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
@pytest.mark.parametrize("sigma", [1.0, 1e-3, 1e-6])
def test_products_are_wrong_by_no_more_than_they_say(noise: str, sigma: float) -> None:
    """Also where the known features say little of a factor; and they do say something, unless noise is tiny."""
    mfa = random_mfa(4, 30, 3, sigma=sigma, noise=noise, spread=0.5)
    loadings = np.array(mfa.loadings)
    loadings[1:, :20, 0] *= np.array([1e-1, 1e-2, 1e-3])[:, None]
    mfa = mfa.replace(loadings=loadings)
    X = mfa.sample(40, rng=0, dtype=np.float64)[0]
    X[5:, 20:] = np.nan
    X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
    seen = ~np.isnan(X)
    found = observed.products(mfa, X, seen, *observed.distinct(seen))
    exact = np.concatenate(
        [mfa.marginal(s).component_log_prob(x[None, s], method="residual") for x, s in zip(X, seen, strict=True)]
    )
    assert (np.abs(found.log_prob - exact) <= found.error + 1e-9 * np.abs(exact)).all()
    assert (found.error > 0).all()
    if sigma > 1e-6:
        assert np.median(found.error) < 1.0


def test_cost_and_memory_are_those_of_the_patterns(monkeypatch: Any) -> None:
    mfa, patterns = random_mfa(5, 9, 3), []
    X = mfa.sample(300, rng=0, dtype=np.float64)[0]
    few = np.where((np.arange(300) % 2 == 0)[:, None] & (np.arange(9) < 4), np.nan, X)
    many = with_gaps(X)
    expected, filled = mfa.log_prob(many, missing="marginal"), mfa.impute(many)
    products = observed.products

    def count(mfa: mfakit.MFA, X: Array, seen: Array, known: Array, number: Array) -> Any:
        patterns.append(len(known))
        return products(mfa, X, seen, known, number)

    monkeypatch.setattr(observed, "products", count)
    mfa.log_prob(few, missing="marginal")
    assert patterns == [2]
    monkeypatch.setattr(marginals, "MATRIX_VALUES", 40 * 5 * 9)
    patterns.clear()
    np.testing.assert_allclose(mfa.log_prob(many, missing="marginal"), expected, rtol=1e-12)
    close(mfa.impute(many), filled, rtol=1e-10, atol=1e-12)
    assert max(patterns) == 40
    assert len(observed.distinct(~np.isnan(many))[0]) > 100


def test_inputs_and_options() -> None:
    torch = pytest.importorskip("torch")
    mfa = random_mfa(3, 7, 2)
    X = with_gaps(mfa.sample(30, rng=0, dtype=np.float64)[0])
    before, expected = X.tobytes(), mfa.log_prob(X, missing="marginal")
    np.testing.assert_allclose(mfa.log_prob(X, missing="marginal", block_rows=4, n_threads=2), expected, rtol=1e-12)
    close(mfa.log_prob(np.asfortranarray(X), missing="marginal"), expected)
    close(mfa.log_prob(X[::2], missing="marginal"), expected[::2])
    found = mfa.log_prob(torch.from_numpy(X.astype(np.float32)), missing="marginal")
    assert (type(found), found.dtype) == (torch.Tensor, torch.float32)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)
    out = np.empty(30)
    assert mfa.log_prob(X, missing="marginal", out=out) is out
    joint = mfa.component_log_prob(X, missing="marginal")
    np.testing.assert_allclose(np.logaddexp.reduce(joint, axis=1), expected, rtol=1e-12)
    close(mfa.component_log_prob(X[:2], missing="marginal"), mfa.component_log_prob(X[:2]), rtol=1e-9)
    assert mfa.responsibilities(X[:0], missing="marginal").shape == (0, 3)
    assert mfa.log_prob(np.ones((2, 7), np.int64), missing="marginal").dtype == np.float32
    assert X.tobytes() == before


def test_what_is_no_sample_is_one_sentence() -> None:
    mfa = random_mfa(3, 7, 2)
    X = with_gaps(mfa.sample(30, rng=0)[0])
    with pytest.raises(ValueError, match=r'NaN or inf, first in row 2; .* use MFA.impute or missing="marginal"'):
        mfa.log_prob(X)
    with pytest.raises(ValueError, match=r"missing must be .*'marginal'"):
        mfa.log_prob(X, missing="ignore")
    for value, text in ((np.nan, "a row without any known feature, first row 21"), (np.inf, "inf, first in row 21")):
        bad = X.copy()
        bad[21] = value
        for name in ("log_prob", "component_log_prob", "responsibilities"):
            with pytest.raises(ValueError, match=text):
                getattr(mfa, name)(bad, missing="marginal", block_rows=8)


def test_far_samples_are_compared_by_their_differences() -> None:
    """Where rounding of log-densities is more than what components differ by."""
    means = np.array([[1.0, 0, 0, 0], [-1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    mfa = mfakit.MFA(np.full(3, 1 / 3), means, np.zeros((3, 4, 1)), 1.0)
    X = np.array([[0.0, 1.0, 1e9, np.nan], [0.5, np.nan, np.nan, 1e12]])
    assert (mfa.log_prob([[0.0, np.nan, 0.0, 1e200], [-1e308, 0.0, 0.0, np.nan]], missing="marginal") == -np.inf).all()
    single = mfa.log_prob(np.array([[0.0, np.nan, 0.0, 3e38]], np.float32), missing="marginal")
    assert (single.dtype, single[0]) == (np.float32, -np.inf)
    near = np.where(np.abs(X) > 1e6, 0.0, X)
    expected = mfa.responsibilities(near, missing="marginal")
    close(mfa.responsibilities(X, missing="marginal"), expected, rtol=1e-6, atol=1e-9)


def test_the_mean_of_the_factors_is_the_marginals() -> None:
    mfa = random_mfa(3, 7, 2, spread=2.0)
    X = with_gaps(mfa.sample(12, rng=0, dtype=np.float64)[0])
    got = marginals.posterior_mean(mfa, X)
    for x, z in zip(X, got, strict=True):
        some = ~np.isnan(x)
        close(z, mfa.marginal(some).latent(x[None, some])[0][0], rtol=1e-9, atol=1e-10)
