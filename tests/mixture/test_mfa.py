"""MFA: what it accepts, what it refuses, and that it stays as it was made."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from support import close, parameters, random_mfa

import mfakit
from mfakit import _reference as reference

GOOD = {
    "weights": [0.5, 0.5],
    "means": np.zeros((2, 3)),
    "loadings": np.ones((2, 3, 1)),
    "noise_variance": [0.1, 0.2],
}


def make(**changes: object) -> mfakit.MFA:
    return mfakit.MFA(**{**GOOD, **changes})


def test_shape_properties() -> None:
    mfa = random_mfa(k=4, d=12, l=3)
    assert (mfa.n_components, mfa.n_features, mfa.n_factors, mfa.is_isotropic) == (4, 12, 3, True)
    assert not random_mfa(noise="diagonal").is_isotropic


def test_one_noise_variance_is_everybodys() -> None:
    np.testing.assert_array_equal(make(noise_variance=0.3).noise_variance, [0.3, 0.3])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"weights": [0.5, 0.6]}, "sum to 1"),
        ({"weights": [1.5, -0.5]}, "non-negative"),
        ({"weights": [1.0]}, r"weights must be \[2\]"),
        ({"weights": [np.nan, 1.0]}, "weights has NaN"),
        ({"means": np.zeros((0, 3))}, "at least one component"),
        ({"means": np.zeros(3)}, "2 dimensions"),
        ({"means": np.full((2, 3), np.inf)}, "means has NaN or inf"),
        ({"loadings": np.ones((2, 4, 1))}, r"loadings must be \[k, d, l\] = \[2, 3, l\]"),
        ({"loadings": np.ones((2, 3))}, "3 dimensions"),
        ({"noise_variance": [0.1, 0.0]}, "noise_variance must be positive.*subspace_distances"),
        ({"noise_variance": -1.0}, "must be positive"),
        ({"noise_variance": np.ones((3, 2))}, "noise_variance must be a number"),
    ],
)
def test_bad_parameters_say_what_is_wrong(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make(**changes)


@pytest.mark.parametrize("bad", [np.zeros((2, 3), bool), np.zeros((2, 3), complex), np.full((2, 3), "a")])
def test_parameters_that_are_no_real_numbers(bad: np.ndarray) -> None:
    with pytest.raises(TypeError, match="means must be real numbers"):
        make(means=bad)


def test_parameters_come_in_any_container() -> None:
    torch = pytest.importorskip("torch")
    means, loadings = torch.ones(1, 3, dtype=torch.bfloat16), torch.ones(1, 3, 1, requires_grad=True)
    mfa = mfakit.MFA([1.0], means, loadings, torch.tensor(0.5, dtype=torch.float64))
    assert (mfa.means.dtype, mfa.loadings.dtype, mfa.noise_variance.dtype) == (np.float32, np.float32, np.float64)
    assert mfa.to(torch.device("cpu")) is mfa
    with pytest.raises(TypeError, match="means is a masked array"):
        mfakit.MFA([1.0], np.ma.masked_array(np.zeros((1, 3)), mask=[[0, 1, 0]]), np.ones((1, 3, 1)), 1.0)
    with pytest.raises(ValueError, match='device must be "cpu", "cuda" or such as "cuda:1", got None'):
        mfa.to(None)


def test_it_is_frozen_and_owns_its_arrays() -> None:
    means = np.zeros((2, 3))
    mfa = make(means=means)
    means += 1
    assert not mfa.means.any()
    with pytest.raises(ValueError, match="read-only"):
        mfa.means[0] = 1
    with pytest.raises(AttributeError):
        mfa.means = means  # type: ignore[misc]


def test_dense_is_the_model() -> None:
    for noise in ("isotropic", "diagonal"):
        mfa = random_mfa(noise=noise)
        weights, means, covariances = mfa.dense()
        np.testing.assert_array_equal(weights, mfa.weights)
        np.testing.assert_array_equal(means, mfa.means)
        close(covariances, reference.covariances(mfa.loadings, mfa.noise_variance), rtol=1e-14)


def test_pickle_keeps_the_parameters() -> None:
    mfa = random_mfa(noise="diagonal")
    mfa.factors  # noqa: B018 (what is computed on first use must not travel)
    again = pickle.loads(pickle.dumps(mfa))
    for a, b in zip(parameters(mfa), parameters(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "factors" not in mfa.__getstate__()


@pytest.mark.parametrize("l", [0, 1, 3, 15])
def test_factors_reproduce_the_dense_precision(l: int) -> None:
    """Wᵀ W = D⁻¹ - (A Aᵀ + D)⁻¹, Z Zᵀ = M⁻¹ and the log-normaliser, also with more factors than features."""
    for noise in ("isotropic", "diagonal"):
        mfa = random_mfa(d=12, l=l, noise=noise)
        f = mfa.factors
        for j, covariance in enumerate(mfa.dense()[2]):
            D = np.broadcast_to(f.noise[j], 12)
            inverse = np.linalg.inv(covariance)
            close(np.diag(1 / D) - f.whitened[j].T @ f.whitened[j], inverse, atol=1e-10 * inverse.max())
            M = np.eye(l) + (mfa.loadings[j].T / D) @ mfa.loadings[j]
            close(f.latent_map[j] @ f.latent_map[j].T, np.linalg.inv(M), atol=1e-12)
            expected = np.log(mfa.weights[j]) - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
            close(f.log_norm[j], expected, rtol=1e-11)


def test_degenerate_loadings_survive_small_noise() -> None:
    """Zero and dependent columns at σ = 1e-8: the capacitance has condition 1e16 there, the SVD route does not care."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(1, 30, 2))
    padded = np.concatenate([A, np.zeros((1, 30, 1)), A[:, :, :1] * 1e-3], axis=2)
    plain, degenerate = (mfakit.MFA([1.0], np.zeros((1, 30)), B, 1e-16) for B in (A, padded))
    X = rng.normal(size=(5, 2)) @ A[0].T + 1e-8 * rng.normal(size=(5, 30))
    scaled = A[0] * np.array([np.sqrt(1 + 1e-6), 1.0])  # what the dependent column adds to A Aᵀ
    expected = mfakit.MFA([1.0], np.zeros((1, 30)), scaled[None], 1e-16).log_prob(X)
    close(degenerate.log_prob(X), expected, rtol=1e-9)
    close(plain.log_prob(X), expected, rtol=1e-3)


def test_noise_that_cannot_be_factorized_names_its_component() -> None:
    mfa = make(loadings=np.full((2, 3, 1), 1e200), noise_variance=[1.0, 1e-300])
    with pytest.raises(ValueError, match=r"component 1: .*raise noise_variance"):
        mfa.log_prob(np.zeros((1, 3)))
