"""Brackets of linear classifiers: the distance to the nearest plane, on either side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from support import Array, blobs, close

from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.classifiers import LinearSVM


def planes(clf: Any) -> tuple[Array, Array]:
    """W [C, d] and b [C] whose largest value decides, of coef_ and intercept_."""
    W, b = clf.coef_.astype(float), np.asarray(clf.intercept_, float)
    return (np.stack([np.zeros_like(W[0]), W[0]]), np.array([0.0, b[0]])) if len(W) == 1 else (W, b)


def distances(W: Array, b: Array, X: Array, y: Array) -> Array:
    """From each sample to the nearest point at which another class ties with its own."""
    found = np.full(len(X), np.inf)
    for i, (x, own) in enumerate(zip(X, y, strict=True)):
        for c in set(range(len(W))) - {own}:
            w = W[own] - W[c]
            found[i] = min(found[i], (w @ x + b[own] - b[c]) / np.linalg.norm(w))
    return found


LINEAR = {"ours": LinearSVM(), "LinearSVC": LinearSVC(dual=False), "LogisticRegression": LogisticRegression()}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_bracket_is_the_distance(name: str, n_classes: int) -> None:
    X, y = blobs(n_classes=n_classes)
    clf = LINEAR[name].fit(X, y)
    r = minimal_perturbation(clf, X, y)
    right = clf.predict(X) == y
    np.testing.assert_array_equal(r.already_wrong, ~right)
    exact = distances(*planes(clf), X[right], y[right])
    assert (r.lower[right] <= exact * (1 + 1e-13)).all()
    close(r.lower[right], exact, rtol=1e-9)
    close(r.upper[right], exact, rtol=1e-9)
    assert r.gap[right].max() < 1e-9
    assert (clf.predict(r.x_adv[right]) == r.y_adv[right]).all()
    attack = gradient_attack(clf, X, y)
    assert not len(attack.grade(r).contradictions)


def test_float32_costs_its_rounding() -> None:
    X, y = blobs(n_classes=3, dtype=np.float32)
    clf = LogisticRegression().fit(X, y)
    r = minimal_perturbation(clf, X, y)
    right = ~r.already_wrong
    exact = distances(*planes(clf), X[right].astype(float), y[right])
    assert (r.lower[right] <= exact).all()
    assert (exact * (1 - 1e-6) <= r.upper[right]).all()
    close(r.lower[right], exact, rtol=1e-5, atol=2e-5)
    close(r.upper[right], exact, rtol=1e-5, atol=2e-5)
    assert r.x_adv.dtype == np.float32


def test_pipelines_and_centroids() -> None:
    X, y = blobs(n_classes=3)
    X = X * np.linspace(1, 3, X.shape[1])
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    scale, mean, (W, b) = scaled[0].scale_, scaled[0].mean_, planes(scaled[1])
    centroids = NearestCentroid().fit(X, y)
    m = centroids.centroids_
    for clf, forms in ((scaled, (W / scale, b - W @ (mean / scale))), (centroids, (2 * m, -(m**2).sum(axis=1)))):
        r = minimal_perturbation(clf, X, y)
        right = ~r.already_wrong
        close(r.lower[right], distances(*forms, X[right], y[right]), rtol=1e-9)
        assert r.gap[right].max() < 1e-9


class Constant:
    """Two classes with the same weights: a decision that nothing changes."""

    coef_, intercept_, classes_ = np.zeros((1, 3)), np.ones(1), np.arange(2)

    def decision_function(self, X: Array) -> Array:
        return np.ones(len(X))


def test_what_no_perturbation_changes_has_an_infinite_radius() -> None:
    r = minimal_perturbation(Constant(), np.zeros((2, 3)))
    assert (r.lower == np.inf).all()
    assert (r.upper == np.inf).all()
    assert r.gap.max() == 0


def test_a_sample_on_the_plane_has_radius_0() -> None:
    X, y = blobs()
    clf = LinearSVC(dual=False).fit(X, y)
    w = clf.coef_[0]
    on = X[:1] - (X[:1] @ w + clf.intercept_)[:, None] * w / (w @ w)
    r = minimal_perturbation(clf, on)
    assert r.lower[0] < 1e-14
    assert r.upper[0] < 1e-10


def far_blobs(dtype: Any = np.float64) -> tuple[Array, Array]:
    """Blobs far from 0, the first class more frequent."""
    X, y = blobs()
    kept = y <= np.arange(len(y)) % 2
    return (X[kept] + 1e6).astype(dtype), y[kept]


def with_longer_sums() -> dict[str, tuple[Any, Array]]:
    """Classifiers whose own sums are much longer than W x, and samples."""
    far, own = far_blobs()
    line = 1e4 * np.random.default_rng(0).normal(size=(20, 1))
    scaled = make_pipeline(MinMaxScaler(), SVC(kernel="linear"))
    return {
        "over support vectors": (SVC(kernel="linear", C=30.0, tol=1.0).fit(line, np.arange(20) % 2), line),
        "squares of lengths": (NearestCentroid(priors="empirical").fit(far, own), far),
        "a scaler in float32": (scaled.fit(far.astype(np.float32), own), far),
    }


SUMS = with_longer_sums()


@pytest.mark.parametrize("name", SUMS)
def test_the_rounding_of_the_classifier_itself_is_taken_off(name: str) -> None:
    clf, X = SUMS[name]
    X = X[:40]
    r = minimal_perturbation(clf, X)
    assert r.success.mean() > 0.8
    for share in 1.0 - np.logspace(-15, -2, 60):
        points = X + share * (r.lower / r.upper)[:, None] * (r.x_adv - X)
        below = r.success & (np.linalg.norm(points - X, axis=1) < r.lower)
        np.testing.assert_array_equal(clf.predict(points)[below], clf.classes_[r.y[below]])
