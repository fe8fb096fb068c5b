"""What the tests of minimal perturbations share: classifiers, and an independent solver."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from support import parameters, random_mfa

import mfakit
from mfakit import _reference as reference
from mfakit.attacks import minimal_perturbation


def in_features(clf: Any, X: Any, y: Any = None, **options: Any) -> Any:
    return minimal_perturbation(clf, X, y, path="features", **options)


def spheres(means: Any, sigmas: Any = (0.1, 0.1), priors: Any = None) -> mfakit.BayesClassifier:
    mixtures = [
        mfakit.MFA([1.0], np.asarray(m, float)[None], np.zeros((1, len(m), 0)), s**2)
        for m, s in zip(means, sigmas, strict=True)
    ]
    return mfakit.BayesClassifier(mixtures, priors)


def diagonal_classifier(
    seed: int, k: int = 3, d: int = 8, l: int = 2, sigma: float = 0.3, spread: float = 1.0, n_classes: int = 2
) -> mfakit.BayesClassifier:
    """Noise that differs by component and feature, over three orders of magnitude."""
    rng = np.random.default_rng(seed)
    mixtures = []
    for c in range(n_classes):
        m = random_mfa(k=k, d=d, l=l, noise="diagonal", sigma=sigma, seed=100 * seed + c, spread=spread)
        mixtures.append(m.replace(noise_variance=m.noise_variance * 10.0 ** rng.uniform(-2, 1, (k, d))))
    return mfakit.BayesClassifier(mixtures)


def check_on_circles(clf: mfakit.BayesClassifier, x: np.ndarray, y: int, lower: float, upper: float) -> np.ndarray:
    """No flip on fine circles around x [2] within `lower`, and one just beyond `upper`; returns the unit circle."""
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999999):
        assert (clf.predict(x + share * lower * circle) == y).all()
    assert (clf.predict(x + 1.001 * upper * circle) != y).any()
    return circle


def log_odds(clf: mfakit.BayesClassifier, x: np.ndarray, y: int) -> float:
    logs = [reference.log_prob(x[None], *parameters(m))[0] for m in clf.mixtures]
    return float(logs[1 - y] - logs[y])


def precision(mfa: mfakit.MFA) -> np.ndarray:
    return np.linalg.inv(mfa.dense()[2][0])


def slsqp_radius(clf: mfakit.BayesClassifier, x: np.ndarray, y: int, starts: list[np.ndarray]) -> float:
    """The nearest flip between two single Gaussians, by SLSQP on dense quadratics, in the boundary's own scale."""
    (m0, m1), (A0, A1) = [m.means[0] for m in clf.mixtures], [precision(m) for m in clf.mixtures]
    sign, at_x = 1.0 if y == 0 else -1.0, log_odds(clf, x, y)
    b = sign * (A0 @ (x - m0) - A1 @ (x - m1))
    H = sign * (A0 - A1)
    best = np.inf
    for start in starts:
        found = minimize(
            lambda u: u @ u, start, jac=lambda u: 2 * u, method="SLSQP",
            constraints={
                "type": "eq", "fun": lambda u: (at_x + b @ u + 0.5 * u @ H @ u) / abs(at_x),
                "jac": lambda u: (b + H @ u) / abs(at_x),
            },
            options={"ftol": 1e-15, "maxiter": 500},
        )  # fmt: skip
        if abs(at_x + b @ found.x + 0.5 * found.x @ H @ found.x) < 1e-8 * abs(at_x):
            best = min(best, float(np.linalg.norm(found.x)))
    return best
