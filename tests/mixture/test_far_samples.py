"""Samples so far away that rounding a log-density hides what components differ by, and gradients where many overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from density_cases import REAL_DTYPES, Array
from support import close, parameters, random_mfa

import mfakit
from mfakit import _reference
from mfakit._arrays.options import Options
from mfakit.fit import Statistics

FAR = (1e6, 1e8, 3e8, 1e15, 1e100, 1e150, 1e160, 1e300)


def ring(k: int, noise: str, l: int = 1, sigma: float = 1.0) -> mfakit.MFA:
    """k equal components around the third axis, along which all their loadings point (l = 0: none)."""
    t = 2 * np.pi * np.arange(k) / k
    loadings = np.zeros((k, 3, l))
    loadings[:, 2] = 0.5 * sigma
    variance = sigma**2 if noise == "isotropic" else np.tile(sigma**2 * np.array([1.0, 1.0, 2.0]), (k, 1))
    return mfakit.MFA(np.full(k, 1 / k), np.c_[np.cos(t), np.sin(t), 0 * t], loadings, variance)


def curvature(mfa: mfakit.MFA) -> float:
    """-∇ log p over the distance along the third axis."""
    return float(np.linalg.inv(_reference.covariances(mfa.loadings, mfa.noise_variance)[0])[2, 2])


@pytest.mark.parametrize("l", [0, 1])
@pytest.mark.parametrize("k", [1, 2, 4, 30])
def test_equally_distant_components_share_a_far_sample(backend: str, noise: str, k: int, l: int) -> None:
    mfa = ring(k, noise, l)
    X = np.array([[0.0, 0.0, v] for v in FAR])
    np.testing.assert_allclose(mfa.responsibilities(X, backend=backend), 1 / k, rtol=1e-6)
    gradient = mfa.grad_log_prob(X, backend=backend)
    np.testing.assert_allclose(gradient[:, 2] / X[:, 2], -curvature(mfa), rtol=1e-9)
    close(gradient[:, :2], np.tile(mfa.means.mean(axis=0)[:2], (len(X), 1)), atol=1e-10)
    # Log-densities leave float64 where squares do, and say so as -inf.
    np.testing.assert_array_equal(np.isneginf(mfa.log_prob(X, backend=backend)), X[:, 2] > 1e154)


def test_shares_in_float32_sum_to_one_wherever_the_sample_is(backend: str, noise: str) -> None:
    mfa = ring(4, noise)
    X = np.array([[0.0, 0.0, v] for v in (1e6, 1e9, 1e19, 1e38)], np.float32)
    np.testing.assert_allclose(mfa.responsibilities(X, backend=backend), 0.25, rtol=1e-6)
    gradient = mfa.grad_log_prob(X, backend=backend)
    np.testing.assert_allclose(gradient[:, 2] / X[:, 2], -curvature(mfa), rtol=1e-6)


@pytest.mark.parametrize("method", ["auto", "residual"])
def test_far_shares_sum_to_one_in_any_direction(backend: str, noise: str, method: str) -> None:
    mfa = random_mfa(5, 6, 2, noise=noise)
    direction = np.random.default_rng(0).normal(size=(1, 6))
    X = np.concatenate([direction * v for v in FAR])
    resp = mfa.responsibilities(X, backend=backend, method=method)
    np.testing.assert_allclose(resp.sum(axis=1), 1.0, rtol=1e-14)
    # Their covariances differ, so one component is nearest by far: the one of the least curvature along the way.
    steepness = [direction[0] @ np.linalg.solve(S, direction[0]) for S in mfa.dense()[2]]
    np.testing.assert_array_equal(resp.argmax(axis=1), np.argmin(steepness))
    gradient = mfa.grad_log_prob(X, backend=backend, method=method)
    expected = -np.linalg.solve(mfa.dense()[2][np.argmin(steepness)], direction[0])
    close(gradient[2:] / X[2:, :1] * direction[0, 0], np.tile(expected, (6, 1)), rtol=1e-6)


def test_shares_between_two_far_components_are_those_of_the_difference(backend: str, noise: str) -> None:
    """Between equal Gaussians at ± e the log-odds are 2 e·Σ⁻¹ x, whatever lies in x beside that."""
    mfa = ring(2, noise)
    h = np.array([-0.7, 0.0, 1e-3, 0.4])
    X = np.stack([h, np.zeros(4), np.full(4, 1e9)], axis=1)
    expected = 1 / (1 + np.exp(-2 * h))
    close(mfa.responsibilities(X, backend=backend)[:, 0], expected, rtol=1e-12)


def test_components_without_weight_have_no_share_of_a_far_sample(backend: str, noise: str) -> None:
    mfa = ring(4, noise).replace(weights=[0.5, 0.0, 0.5, 0.0])
    X = np.array([[0.0, 0.0, v] for v in FAR])
    resp = mfa.responsibilities(X, backend=backend)
    close(resp, np.tile([0.5, 0.0, 0.5, 0.0], (len(X), 1)), rtol=1e-6)
    _, _, component = mfa.latent(X, backend=backend)
    assert set(component.tolist()) <= {0, 2}


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_decisions_about_far_samples(backend: str, noise: str, dtype: str) -> None:
    mfa = ring(4, noise)
    clf = mfakit.BayesClassifier([mfa, mfa.replace(means=mfa.means + np.array([0.0, 0.0, 1.0]))], [0.3, 0.7])
    v = np.array(FAR if dtype == "float64" else [1e6, 1e9, 1e19, 1e38], dtype)
    X = np.stack([0 * v, 0 * v, v], axis=1)
    # ½ c (v² - (v - 1)²) and the priors: the sign and the size, where both log-densities are -inf, too.
    expected = curvature(mfa) * (v.astype(np.float64) - 0.5) + np.log(7 / 3)
    close(clf.decision_function(X, backend=backend), expected, dtype, rtol=1e-6)
    np.testing.assert_array_equal(clf.predict(X, backend=backend), 1)
    np.testing.assert_array_equal(clf.predict(-X, backend=backend), 0)
    np.testing.assert_allclose(clf.predict_proba(-X, backend=backend)[:, 0], 1.0)
    near = X[v <= (1e9 if dtype == "float64" else 1e6)]  # beyond, the two gradients are rounded by more
    expected_gradient = np.tile([0.0, 0.0, curvature(mfa)], (len(near), 1))
    rounding = 4 * np.finfo(dtype).eps * np.abs(near).max()
    close(clf.decision_gradient(near, backend=backend), expected_gradient, dtype, atol=rounding)


def test_a_class_without_prior_is_not_predicted_where_squares_overflow(backend: str) -> None:
    mfa = ring(2, "isotropic")
    clf = mfakit.BayesClassifier([mfa, mfa, mfa.replace(means=mfa.means + 1.0)], [0.0, 0.5, 0.5])
    X = np.array([[0.0, 0.0, -1e200]])
    np.testing.assert_array_equal(clf.predict(X, backend=backend), [1])
    close(clf.predict_proba(X, backend=backend), [[0.0, 1.0, 0.0]])


def test_far_samples_weigh_no_more_than_one_in_em_and_imputation(backend: str, noise: str) -> None:
    mfa = ring(4, noise)
    X = np.array([[0.0, 0.0, v] for v in (1e6, 1e8, 1e12)])
    weight = Statistics.zeros(mfa).add(X, options=Options(backend=backend)).weight
    np.testing.assert_allclose(weight, 0.75, rtol=1e-6)
    mask = np.array([True, True, False])  # the two features in which the components differ, and whose mean is 0
    np.testing.assert_allclose(mfa.impute(X, mask, backend=backend)[:, :2], 0.0, atol=1e-6)


def test_torch_gradients_of_far_samples(noise: str) -> None:
    torch = pytest.importorskip("torch")
    mfa = ring(4, noise)
    X = torch.tensor([[0.0, 0.0, v] for v in (1e6, 1e9, 1e15)], dtype=torch.float64, requires_grad=True)
    mfakit.torch.MFAModule(mfa)(X).sum().backward()
    np.testing.assert_allclose(X.grad[:, 2] / X.detach()[:, 2], -curvature(mfa), rtol=1e-9)


# --- gradients where many components overlap


def overlapping(noise: str, sigma: float, k: int = 24, d: int = 30) -> mfakit.MFA:
    """Two bundles of parallel components, each within a fraction of σ: a dozen of them matter to every sample."""
    rng = np.random.default_rng(0)
    means = np.where(np.arange(k)[:, None] < k // 2, 1.0, -1.0) + 0.1 * sigma * rng.normal(size=(k, d))
    variance = np.full(k, sigma**2) if noise == "isotropic" else sigma**2 * np.tile(rng.uniform(0.5, 2, d), (k, 1))
    return mfakit.MFA(np.full(k, 1 / k), means, np.repeat(0.3 * rng.normal(size=(1, d, 2)), k, axis=0), variance)


def by_projection(mfa: mfakit.MFA, X: Array) -> Array:
    """∇ log p in long double, of a mixture whose components share A and D: with D^-1/2 A = Q T, what (A Aᵀ + D)⁻¹
    leaves of r is D^-1/2 (I - Q Qᵀ + Q (I + T Tᵀ)⁻¹ Qᵀ) D^-1/2 r.
    """
    root = np.sqrt(np.broadcast_to(mfa.factors.noise[0], mfa.n_features).astype(np.longdouble))
    A = mfa.loadings[0] / root[:, None]
    Q = A.copy()
    for _ in range(2):  # Gram and Schmidt, twice: NumPy's QR knows no long double
        for a in range(Q.shape[1]):
            Q[:, a] -= Q[:, :a] @ (Q[:, :a].T @ Q[:, a])
            Q[:, a] /= np.sqrt(Q[:, a] @ Q[:, a])
    T = (Q.T @ A).astype(np.float64)
    R = (X.astype(np.longdouble)[:, None] - mfa.means) / root
    inside = R @ Q
    Y = R - inside @ Q.T + (inside @ np.linalg.inv(np.eye(len(T)) + T @ T.T)) @ Q.T
    q = -0.5 * (R * Y).sum(axis=2)
    w = np.exp(q - q.max(axis=1, keepdims=True))
    w /= w.sum(axis=1, keepdims=True)
    return np.asarray(-(w[:, :, None] * Y / root).sum(axis=1), np.float64)


@pytest.mark.parametrize("method", ["auto", "dense", "residual"])
@pytest.mark.parametrize("sigma", [1.0, 1e-2, 1e-4, 1e-6])
def test_float32_gradients_where_many_components_matter(backend: str, noise: str, sigma: float, method: str) -> None:
    mfa = overlapping(noise, sigma)
    X = mfa.sample(16, rng=1)[0]
    right = by_projection(mfa, X)
    options: dict[str, Any] = {"backend": backend, "method": method}
    error = np.linalg.norm(mfa.grad_log_prob(X, **options) - right, axis=1) / np.linalg.norm(right, axis=1)
    assert error.max() < 2e-6
    clf = mfakit.BayesClassifier([mfa, mfa.replace(means=-mfa.means + 0.5)])
    other = by_projection(clf.mixtures[1], X)
    error = np.linalg.norm(clf.decision_gradient(X, **options) - (other - right), axis=1)
    assert (error < 2e-6 * np.linalg.norm(other - right, axis=1)).all()


def test_a_float32_gradient_in_which_components_cancel(backend: str) -> None:
    """Half-way between components at ± 1e3, whose gradients are a thousand times the sum: it is summed in float64."""
    k = 40
    means = np.zeros((k, 3))
    means[:, 0] = np.where(np.arange(k) % 2, 1e3, -1e3)
    mfa = mfakit.MFA(np.full(k, 1 / k), means, np.zeros((k, 3, 1)), 1e6)
    X = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]], np.float32)
    expected = _reference.grad_log_prob(X, *parameters(mfa))
    got = mfa.grad_log_prob(X, backend=backend)
    close(got, expected, np.float32, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
