"""Subspaces that share a direction, exactly and nearly: a lower bound must not rest on which of the two it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mfakit
from mfakit.attacks.coordinates import FactorCoordinates
from mfakit.attacks.minimal.pairs import PairTable

Array = NDArray[Any]


def _pair(angle: float, seed: int) -> mfakit.BayesClassifier:
    """Two Gaussians in three dimensions whose one-dimensional subspaces meet at a small angle."""
    rng = np.random.default_rng(seed)
    direction, other = np.linalg.qr(rng.normal(size=(3, 2)))[0].T
    turned = np.cos(angle) * direction + np.sin(angle) * other
    scales, means = rng.uniform(1.0, 40.0, 2), rng.normal(size=(2, 3))
    variances = rng.uniform(0.05, 0.5, 2)
    return mfakit.BayesClassifier(
        [
            mfakit.MFA([1.0], means[:1], (scales[0] * direction)[None, :, None], variances[:1]),
            mfakit.MFA([1.0], means[1:], (scales[1] * turned)[None, :, None], variances[1:]),
        ]
    )


def _exact(clf: mfakit.BayesClassifier, x: Array, y: int) -> float:
    """The distance to the quadric from dense matrices: its one root, by bisection on the eigenvalues of H."""
    precision, log_const = [], []
    for m in (clf.mixtures[y], clf.mixtures[1 - y]):
        A = m.loadings[0].astype(float)
        sigma2 = float(m.noise_variance[0])
        # Woodbury's identity, whose entries do not lose digits where A is large.
        precision.append((np.eye(3) - A @ A.T / (sigma2 + float((A**2).sum()))) / sigma2)
        log_const.append(-0.5 * (np.log(sigma2 + float((A**2).sum())) + 2 * np.log(sigma2)))
    r = [x - m.means[0] for m in (clf.mixtures[y], clf.mixtures[1 - y])]
    q0 = log_const[1] - log_const[0] - 0.5 * (r[1] @ precision[1] @ r[1] - r[0] @ precision[0] @ r[0])
    if q0 >= 0:
        return 0.0
    h, V = np.linalg.eigh(precision[0] - precision[1])
    b = V.T @ (precision[0] @ r[0] - precision[1] @ r[1])

    def rise(lam: float) -> float:
        delta = lam * b / (1 - lam * h)
        return float(q0 + b @ delta + 0.5 * (h * delta**2).sum())

    low, high = 0.0, 1.0 / h.max() if h.max() > 0 else 1e6
    while low < (middle := 0.5 * (low + high)) < high:
        low, high = (middle, high) if rise(middle) < 0 else (low, middle)
    return float(np.linalg.norm(low * b / (1 - low * h)))


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-7, 1e-6, 5e-6, 9e-6, 2e-5, 1e-3])
def test_lower_bounds_hold_whatever_the_angle(angle: float) -> None:
    for seed in range(25):
        clf = _pair(angle, seed)
        X, y = clf.sample(6, rng=seed, dtype=np.float64)
        y = clf.predict(X)
        r = mfakit.attacks.minimal_perturbation(clf, X, y)
        for i in range(len(X)):
            exact = _exact(clf, X[i], int(y[i]))
            assert r.lower[i] <= exact * (1 + 1e-11)  # 3e-12: the rounding of `exact` itself
            assert r.upper[i] >= exact * (1 - 1e-9)
            assert r.gap[i] <= 1e-8


def test_what_inner_products_do_not_resolve_is_not_left_to_them() -> None:
    shipped = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    assert PairTable.of(FactorCoordinates.of(shipped)).lost == 0.0
    for angle, path in ((0.0, "factor"), (1e-13, "factor"), (1e-9, "features"), (5e-6, "features"), (0.1, "factor")):
        clf = _pair(angle, 0)
        X, _ = clf.sample(1, rng=0)
        assert mfakit.attacks.minimal_perturbation(clf, X).settings["path"] == path
    with pytest.raises(ValueError, match="two of its subspaces almost share a direction"):
        mfakit.attacks.minimal_perturbation(_pair(1e-6, 0), X, path="factor")


def test_a_direction_that_several_components_share_among_them() -> None:
    """No two share one, three do: the dual of several sources drops it and gives away what that may hide."""
    rng = np.random.default_rng(3)
    for tilt in (0.0, 1e-7, 1e-4, 1e-2):
        plane = np.linalg.qr(rng.normal(size=(5, 3)))[0].T
        rows = [plane[0], plane[1], (plane[0] + plane[1]) / np.sqrt(2) * np.cos(tilt) + plane[2] * np.sin(tilt)]
        means = rng.normal(size=(3, 5)) * 0.2
        two = mfakit.MFA([0.5, 0.5], means[:2], np.stack(rows[:2])[:, :, None], 0.02)
        one = mfakit.MFA([1.0], means[2:] + 0.3, rows[2][None, :, None], 0.02)
        clf = mfakit.BayesClassifier([two, one])
        X, y = clf.sample(20, rng=1, dtype=np.float64)
        compiled = mfakit.attacks.minimal_perturbation(clf, X, y, path="factor")
        readable = mfakit.attacks.minimal_perturbation(clf, X, y, path="features")
        assert (compiled.lower <= readable.upper * (1 + 1e-12)).all()
        assert (readable.lower <= compiled.upper * (1 + 1e-12)).all()
        attack = mfakit.attacks.gradient_attack(clf, X, y, polish=True, step_size=0.01)
        assert not len(attack.grade(compiled).contradictions)


def test_the_boundary_is_found_where_the_walk_ends_on_it() -> None:
    """A walk that ends within rounding of the boundary is pushed on, not thrown away (it was: upper 2.64, not 0.54)."""
    base, rng = mfakit.datasets.load_bayes_pair("mnist-06"), np.random.default_rng(0)
    for sigma in (0.1, 0.03, 0.01):
        X, y = base.symmetric(sigma).sample(100, rng=rng, balanced=True, dtype=np.float64)
    clf = base.symmetric(0.01).asymmetric()
    r = mfakit.attacks.minimal_perturbation(clf, X[58:59], y[58:59])
    assert r.gap[0] < 1e-6
    assert r.upper[0] < 0.54
