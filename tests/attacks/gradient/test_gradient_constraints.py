"""The gradient attack within bounds of its own for each feature, and to a given class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import blobs, close

import mfakit
from mfakit.attacks import gradient_attack
from mfakit.classifiers import RBFSVM, LinearSVM


def three_spheres() -> mfakit.BayesClassifier:
    means = [[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]
    return mfakit.BayesClassifier([mfakit.MFA([1.0], [m], np.zeros((1, 2, 1)), 0.01) for m in means])


def test_a_walk_slides_along_the_bounds_of_single_features() -> None:
    """The plane x₀ + x₁ = 2 between two spheres, and a box that x₁ cannot leave: the rest of the way is along x₀."""
    clf = mfakit.BayesClassifier([mfakit.MFA([1.0], [m], np.zeros((1, 2, 1)), 0.01) for m in ([0.0, 0], [2.0, 2.0])])
    bounds = np.array([-1.0, -1.0]), np.array([5.0, 0.5])
    r = gradient_attack(clf, np.zeros((1, 2)), bounds=bounds, polish=True, step_size=0.01)
    close(r.x_adv, [[1.5, 0.5]], rtol=1e-6)
    assert r.settings["bounds"] == ((-1.0, -1.0), (5.0, 0.5))
    assert r.settings["path"] == "features"
    never = gradient_attack(clf, np.zeros((1, 2)), bounds=(-0.5, 0.5), max_steps=200)
    assert never.reason.tolist() == ["no gradient"]


def test_bounds_are_rounded_as_points_are() -> None:
    """A float32 sample at the bound 0.1 is inside, although 0.1 in float32 is above 0.1."""
    clf = three_spheres()
    X = np.full((1, 2), 0.1, np.float32)
    for bounds in ((-1.0, 0.1), ([-1.0, -1.0], [0.1, 0.1])):
        assert not gradient_attack(clf, X, bounds=bounds, max_steps=3).success[0]
    r = gradient_attack(clf, X, bounds=([-1, -1], [0.1, 5.0]))
    assert r.success[0]
    assert (r.x_adv[0] <= np.array([0.1, 5.0], np.float32)).all()


def test_a_target_is_reached_past_a_nearer_class() -> None:
    clf = three_spheres()
    X = np.array([[0.0, 0.0], [0.0, 0.2], [0.0, 0.1]])
    r = gradient_attack(clf, X, [0, 0, 0], target=[1, 1, 2], polish=True, step_size=0.01)
    np.testing.assert_array_equal(clf.predict(r.x_adv), [1, 1, 2])
    close(r.l2, [1.0, 1.0, 0.4], rtol=1e-6)
    assert r.target_class.tolist() == [1, 1, 2]
    assert r.target.tolist() == [0, 0, 0]
    assert r.settings["targeted"]
    assert r.settings["path"] == "features"
    short = gradient_attack(clf, X, [0, 0, 0], target=1, max_steps=3)
    assert not short.success.any()
    with pytest.raises(ValueError, match='path="factor" cannot be taken: a target must beat every other class'):
        gradient_attack(clf, X, [0, 0, 0], target=1, path="factor")


def test_of_two_classes_the_target_is_any_other() -> None:
    clf = mfakit.BayesClassifier(three_spheres().mixtures[:2])
    X, y = clf.sample(10, rng=0, dtype=np.float64)
    plain, aimed = (gradient_attack(clf, X, y, target=t, polish=True) for t in (None, 1 - y))
    assert aimed.settings["path"] == plain.settings["path"]
    np.testing.assert_array_equal(plain.x_adv, aimed.x_adv)


@pytest.mark.parametrize("make", [LinearSVM, lambda: RBFSVM(gamma=0.1)])
def test_targets_of_other_classifiers_are_values_of_classes(make: Any) -> None:
    X, codes = blobs(60, 4, 3)
    names = np.array(["cat", "dog", "owl"])
    svm = make().fit(X, names[codes])
    rows = np.flatnonzero((codes != 2) & (svm.predict(X) == names[codes]))[:10]
    r = gradient_attack(svm, X[rows], names[codes[rows]], target="owl", polish=True, step_size=0.05)
    assert r.success.all()
    assert (svm.predict(r.x_adv) == "owl").all()
    assert (r.l2 >= gradient_attack(svm, X[rows], names[codes[rows]], polish=True, step_size=0.05).l2 * 0.999).all()
    with pytest.raises(
        ValueError, match="target must hold the classes cat, dog, owl of this classifier, got values emu"
    ):
        gradient_attack(svm, X[rows], target="emu")
