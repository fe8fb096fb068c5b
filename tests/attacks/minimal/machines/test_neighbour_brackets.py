"""Brackets of the nearest neighbour: halves of distances, all sets of planes, brute force, and ties."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from support import Array, blobs, close

import mfakit
from mfakit.attacks import minimal_perturbation


def nearest_class(prototypes: Array, classes: Array, X: Array) -> Array:
    return classes[((X[:, None] - prototypes) ** 2).sum(axis=2).argmin(axis=1)]


def exact_radius(prototypes: Array, classes: Array, x: Array) -> float:
    """The shortest way into a cell of another class by all sets of at most d planes that may hold it."""
    own = classes[((prototypes - x) ** 2).sum(axis=1).argmin()]
    S, others = prototypes[classes == own] - x, prototypes[classes != own] - x
    best = np.inf
    for p in others:
        A, beta = p - S, (p @ p - (S**2).sum(axis=1)) / 2
        for size in range(1, min(len(S), len(x)) + 1):
            for held in map(list, combinations(range(len(S)), size)):
                delta = np.linalg.pinv(A[held]) @ beta[held]
                if (A @ delta >= beta - 1e-9).all():
                    best = min(best, float(np.linalg.norm(delta)))
    return best


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_bracket_is_the_shortest_way_by_all_sets_of_planes(d: int) -> None:
    rng = np.random.default_rng(d)
    for _ in range(4):
        prototypes = rng.normal(size=(9, d))
        classes = rng.permutation(np.arange(9) % 3)
        clf = KNeighborsClassifier(1).fit(prototypes, classes)
        X = rng.normal(size=(4, d))
        r = minimal_perturbation(clf, X)
        exact = np.array([exact_radius(prototypes, classes, x) for x in X])
        np.testing.assert_array_equal(r.y, clf.predict(X))
        close(r.lower, exact, rtol=1e-9)
        close(r.upper, exact, rtol=1e-9)
        assert (r.lower <= exact * (1 + 1e-12)).all()
        np.testing.assert_array_equal(clf.predict(r.x_adv), r.y_adv)
        assert (r.y_adv != r.y).all()


def test_no_flip_below_lower_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    prototypes, classes = rng.normal(size=(40, 2)), rng.integers(0, 2, 40)
    X = rng.normal(size=(10, 2))
    r = minimal_perturbation(KNeighborsClassifier(1).fit(prototypes, classes), X)
    angles = np.linspace(0, 2 * np.pi, 721)
    for i, x in enumerate(X):
        lengths = r.lower[i] * np.linspace(0, 1, 41)[1:] * (1 - 1e-9)
        moved = (lengths[:, None, None] * np.column_stack([np.cos(angles), np.sin(angles)])).reshape(-1, 2)
        assert (nearest_class(prototypes, classes, x + moved) == r.y[i]).all()
        beyond = x + (r.x_adv[i] - x) * (1 + 1e-9)
        assert nearest_class(prototypes, classes, beyond[None])[0] != r.y[i]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algorithm", ["brute", "kd_tree"])
def test_digits_have_no_gap(dtype: Any, algorithm: str) -> None:
    pair = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    X, y = pair.sample(200, rng=0, dtype=dtype)
    labels = np.array(["zero", "six"])[y]
    new, truth = pair.sample(8, rng=1, dtype=dtype)
    clf = KNeighborsClassifier(1, algorithm=algorithm).fit(X, labels)
    r = minimal_perturbation(clf, new, np.array(["zero", "six"])[truth])
    assert r.success.all()
    assert r.gap.max() < (1e-9 if dtype == np.float64 else 1e-6)
    np.testing.assert_array_equal(clf.predict(r.x_adv), clf.classes_[r.y_adv])
    assert r.x_adv.dtype == dtype
    # No farther than half of the way to the other class, and never nearer than half of what that is longer.
    squares = ((new[:, None].astype(float) - X) ** 2).sum(axis=2)
    own = np.where(y == truth[:, None], squares, np.inf).min(axis=1)
    other = np.where(y != truth[:, None], squares, np.inf).min(axis=1)
    assert (r.lower >= (np.sqrt(other) - np.sqrt(own)) / 2 - 1e-9).all()
    assert (r.upper <= np.sqrt(other)).all()


def test_many_prototypes_are_screened() -> None:
    X, y = blobs(n=2000, d=10)
    clf = KNeighborsClassifier(1).fit(X, y)
    r = minimal_perturbation(clf, X[:20] + 0.1)
    assert r.gap[~r.already_wrong].max() < 1e-9
    assert r.n_pairs_examined.mean() < 100


def test_ties_and_duplicates() -> None:
    prototypes = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 0.0], [6.0, 0.0]])
    clf = KNeighborsClassifier(1).fit(prototypes, [0, 0, 1, 1])
    r = minimal_perturbation(clf, np.array([[0.0, 0.0], [2.0, 0.0], [6.0, 1.0]]), clf.predict([[0, 0], [2, 0], [6, 1]]))
    # A duplicate of another class may win its whole cell: proved is only the way there, and a sure flip is farther.
    close(r.lower[:1], np.array([1.0]), rtol=1e-9)
    close(r.upper[:1], np.array([4.0]), rtol=1e-9)
    assert r.lower[1] == 0
    assert r.success[1]
    close(r.lower[2:], np.array([2.0]), rtol=1e-9)
    middle = minimal_perturbation(KNeighborsClassifier(1).fit([[0.0], [2.0]], [0, 1]), np.array([[1.0]]))
    assert middle.lower[0] == 0
    assert middle.upper[0] < 1e-6


def test_wrong_samples_are_not_attacked() -> None:
    clf = KNeighborsClassifier(1).fit([[0.0], [2.0]], [0, 1])
    r = minimal_perturbation(clf, np.array([[0.4], [1.9]]), [1, 1])
    np.testing.assert_array_equal(r.already_wrong, [True, False])
    assert r.upper[0] == r.lower[0] == 0
    close(r.lower[1:], np.array([0.9]), rtol=1e-9)


def test_one_class_alone_has_no_radius() -> None:
    r = minimal_perturbation(KNeighborsClassifier(1).fit([[0.0], [2.0]], [3, 3]), np.array([[0.4]]))
    assert r.lower[0] == r.upper[0] == np.inf


def test_classifiers_of_other_samples_are_told_apart() -> None:
    X, y = blobs(n=20)
    a, b = (minimal_perturbation(KNeighborsClassifier(1).fit(X * s, y), X[:2]) for s in (1.0, 2.0))
    assert a.classifier != b.classifier
    assert a.classifier == minimal_perturbation(KNeighborsClassifier(1).fit(X, y), X[:1]).classifier


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_flip_is_found_beside_a_duplicate_of_another_class(dtype: Any) -> None:
    clf = KNeighborsClassifier(1).fit([[7354.9], [7354.9], [9515.1], [-3000.0]], [0, 1, 1, 0])
    X = np.array([[8286.4375]], dtype)
    assert clf.predict(X)[0] == 0
    r = minimal_perturbation(clf, X)
    assert r.success[0]
    close(r.upper, np.array([148.5625]), rtol=1e-5)


def test_y_adv_is_what_predict_says_where_classes_tie() -> None:
    prototypes = [1, -1, 2, -1, 0, 2, 1, -1, 0, -1, 0, 0, 0, -2, 0, -1, 0, 1, 0]
    clf = KNeighborsClassifier(1).fit(np.array(prototypes, float)[:, None], np.arange(19) % 3)
    r = minimal_perturbation(clf, np.array([[2.47374032], [0.91], [-1.14], [-1.18]]))
    assert r.success.all()
    np.testing.assert_array_equal(clf.predict(r.x_adv), clf.classes_[r.y_adv])
