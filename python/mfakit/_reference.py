"""The oracle: every formula of mfakit with dense float64 covariances, slow and plain.

Tests compare all backends with this file and nothing here calls any other file of mfakit. A model is passed as its
parameters ``weights`` [k], ``means`` [k, d], ``loadings`` [k, d, l], ``noise_variance`` [k] or [k, d].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lstsq, orth
from scipy.special import logsumexp

Array = NDArray[Any]
LOG_2PI = np.log(2 * np.pi)


def covariances(loadings: Array, noise_variance: Array) -> Array:
    """A Aᵀ + D of each component, [k, d, d]."""
    loadings = np.asarray(loadings, float)
    k, d, _ = loadings.shape
    noise = np.broadcast_to(np.reshape(np.asarray(noise_variance, float), (k, -1)), (k, d))
    return np.asarray(loadings @ loadings.transpose(0, 2, 1) + np.stack([np.diag(row) for row in noise]))


def component_log_prob(X: Array, weights: Array, means: Array, loadings: Array, noise_variance: Array) -> Array:
    """log (weight_k N(x; μ_k, A_k A_kᵀ + D_k)), [n, k], by a dense Cholesky factor."""
    columns = []
    for weight, mean, covariance in zip(weights, means, covariances(loadings, noise_variance), strict=True):
        factor = cho_factor(covariance, lower=True)
        R = np.asarray(X, float) - mean
        maha = np.einsum("nd,nd->n", R, cho_solve(factor, R.T).T)
        log_det = 2 * np.log(np.diag(factor[0])).sum()
        with np.errstate(divide="ignore"):
            columns.append(np.log(weight) - 0.5 * (maha + log_det + len(mean) * LOG_2PI))
    return np.stack(columns, axis=1)


def log_prob(X: Array, *model: Array) -> Array:
    """log p(x), [n]."""
    return np.asarray(logsumexp(component_log_prob(X, *model), axis=1))


def responsibilities(X: Array, *model: Array) -> Array:
    """p(component | x), [n, k]."""
    log_joint = component_log_prob(X, *model)
    return np.asarray(np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True)))


def grad_log_prob(X: Array, weights: Array, means: Array, loadings: Array, noise_variance: Array) -> Array:
    """∇ log p(x) = −Σ_k r_k Σ_k⁻¹ (x − μ_k), [n, d]."""
    resp = responsibilities(X, weights, means, loadings, noise_variance)
    grad = np.zeros((len(X), means.shape[1]))
    for r, mean, covariance in zip(resp.T, means, covariances(loadings, noise_variance), strict=True):
        grad -= r[:, None] * np.linalg.solve(covariance, (np.asarray(X, float) - mean).T).T
    return grad


def latent_posterior(x: Array, mean: Array, loadings: Array, noise_variance: Array) -> tuple[Array, Array]:
    """Mean [l] and covariance [l, l] of z given x, for one component, by conditioning the joint Gaussian of (z, x)."""
    A = np.asarray(loadings, float)
    gain = np.linalg.solve(covariances(A[None], np.atleast_1d(noise_variance)[None])[0], A).T
    return gain @ (x - mean), np.eye(A.shape[1]) - gain @ A


def impute(x: Array, missing: Array, weights: Array, means: Array, loadings: Array, noise_variance: Array) -> Array:
    """E[x_missing | x_observed] under the mixture, filled into x [d]."""
    seen = ~missing
    sigma = covariances(loadings, noise_variance)
    guesses, log_joint = [], []
    for weight, mean, cov in zip(weights, means, sigma, strict=True):
        r = x[seen] - mean[seen]
        S = cov[np.ix_(seen, seen)]
        solved = np.linalg.solve(S, r)
        guesses.append(mean[missing] + cov[np.ix_(missing, seen)] @ solved)
        log_joint.append(np.log(weight) - 0.5 * (r @ solved + np.linalg.slogdet(S)[1] + seen.sum() * LOG_2PI))
    resp = np.exp(np.array(log_joint) - logsumexp(log_joint))
    filled = np.array(x, float)
    filled[missing] = resp @ np.stack(guesses)
    return filled


def subspace_distance(mean0: Array, loadings0: Array, mean1: Array, loadings1: Array) -> float:
    """min over z0, z1 of ‖μ0 + A0 z0 − μ1 − A1 z1‖, by an SVD-based least-squares solve."""
    A = np.hstack([loadings0, loadings1])
    offset = np.asarray(mean0, float) - mean1
    if A.shape[1] == 0:
        return float(np.linalg.norm(offset))
    return float(np.linalg.norm(offset - A @ lstsq(A, offset)[0]))


def point_subspace_distance(x: Array, mean: Array, loadings: Array) -> float:
    """min over z of ‖x − μ − A z‖."""
    r = np.asarray(x, float) - mean
    Q = orth(loadings) if loadings.size else np.zeros((len(r), 0))
    return float(np.linalg.norm(r - Q @ (Q.T @ r)))
