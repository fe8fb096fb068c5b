"""Mixtures made to break the bounds of components."""

from __future__ import annotations

from typing import Any

import numpy as np
from density_cases import Array

import mfakit


def mixture(weights: Any, means: Array, loadings: Array, noise: Any, dtype: Any = np.float64) -> mfakit.MFA:
    k = len(means)
    weights = np.full(k, 1.0 / k) if weights is None else np.asarray(weights)
    noise = noise if np.ndim(noise) == 2 else np.broadcast_to(noise, k)
    return mfakit.MFA(weights, means.astype(dtype), loadings.astype(dtype), noise.astype(float))


def hard_model(name: str, rng: np.random.Generator, dtype: Any) -> mfakit.MFA:
    """A mixture made to break the bound or its rounding."""
    k, d, l = 12, 40, 3
    means, A = rng.normal(size=(k, d)), rng.normal(size=(k, d, l))
    if name == "near equal":
        shift = 1e-4 * rng.normal(size=(k, d))
        return mixture(None, means[:1] + shift, A[:1] * (1 + 1e-5 * rng.normal(size=(k, 1, 1))), 0.01, dtype)
    if name == "one far broader":
        A[0] *= 1e3
        return mixture(None, means, A, np.r_[1e4, np.full(k - 1, 1e-4)], dtype)
    if name.startswith("sigma"):
        return mixture(None, means, A, float(name.split()[1]) ** 2, dtype)
    if name == "every sigma":
        return mixture(None, means, A, np.geomspace(1e-12, 1e6, k) ** 2, dtype)
    if name == "means unseen":  # the loadings are long and take the projection; the means are at right angles to them
        Q = np.linalg.qr(rng.normal(size=(d, d)))[0]
        A = np.stack([Q[:, :20] @ rng.normal(size=(20, l)) for _ in range(k)]) * 30
        return mixture(None, (rng.normal(size=(k, 20)) @ Q[:, 20:].T), A, 0.04, dtype)
    if name == "offset":
        return mixture(None, means + 1e4, A, 0.01, dtype)
    if name == "one component":
        return mixture(None, means[:1], A[:1], 0.01, dtype)
    if name == "few features":  # r >= d
        return mixture(None, means[:, :4], A[:, :4], 0.01, dtype)
    if name == "more factors than features":
        return mixture(None, means[:, :2], A[:, :2], 0.01, dtype)
    if name == "duplicates":
        return mixture(None, np.repeat(means[:3], 4, axis=0), np.repeat(A[:3], 4, axis=0), 0.01, dtype)
    if name == "zero weights":
        return mixture(np.r_[0.0, 0.0, np.full(k - 2, 1 / (k - 2))], means, A, 0.01, dtype)
    if name == "dependent loadings":
        A[:, :, 2] = A[:, :, 0] * 1e6 + 1e-6 * A[:, :, 2]
        return mixture(None, means, A, 1e-4, dtype)
    if name == "graded loadings":  # the least of them is known to 1e-16 times the largest, which is 1e-4 of itself
        v, w = np.linalg.qr(rng.normal(size=(12, 2)))[0].T
        big, small = 10.0 ** rng.uniform(10, 12.5, k), rng.uniform(0.5, 3, k)
        first = big[:, None] * v
        A = np.stack([first, first * rng.uniform(0.5, 2, (k, 1)) + small[:, None] * w], axis=2)
        return mixture(None, rng.normal(size=(k, 12)), A, 1.0, dtype)
    if name == "aligned":  # one factor and one mean: every inequality of the proof can be an equation
        return mixture(None, np.zeros((k, d)), A[:, :, :1] * np.geomspace(0.1, 30, k)[:, None, None], 0.09, dtype)
    if name == "no factors":
        return mixture(None, means, A[:, :, :0], 0.01, dtype)
    if name == "diagonal noise":
        return mixture(None, means, A, 10.0 ** rng.uniform(-3, 0, (k, d)), dtype)
    if name == "diagonal, alike":  # three levels for all: groups are exact
        return mixture(None, means, A, np.tile(10.0 ** -rng.integers(1, 4, d), (k, 1)), dtype)
    if name == "diagonal over 12 orders":  # and loadings that mix all of them
        return mixture(None, means, A, 10.0 ** rng.uniform(-12, 0, d) * rng.uniform(0.5, 2, (k, d)), dtype)
    if name == "diagonal over 12 orders, aligned":  # loadings in units of the noise, each in few features
        noise = 10.0 ** rng.uniform(-12, 0, d) * rng.uniform(0.5, 2, (k, d))
        A = 5 * A * (rng.random((1, d, l)) < 0.2) * np.sqrt(noise)[:, :, None]
        return mixture(None, means * np.sqrt(noise), A, noise, dtype)
    if name == "diagonal, zero weights":
        noise = 10.0 ** rng.uniform(-2, 0, (k, d))
        return mixture(np.r_[0.0, 0.0, np.full(k - 2, 1 / (k - 2))], means, A, noise, dtype)
    raise AssertionError(name)


HARD = [
    "near equal", "one far broader", "sigma 1e-12", "sigma 1e-6", "sigma 1e-2", "sigma 1", "sigma 1e6", "every sigma",
    "means unseen", "offset", "one component", "few features", "more factors than features", "duplicates",
    "zero weights", "dependent loadings", "graded loadings", "aligned", "no factors", "diagonal noise",
    "diagonal, alike", "diagonal over 12 orders", "diagonal over 12 orders, aligned", "diagonal, zero weights",
]  # fmt: skip
