"""The gradient attack on linear classifiers: at exactly the distance to their planes."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC
from support import Array, blobs, close

from mfakit.attacks import gradient_attack
from mfakit.classifiers import RBFSVM, LinearSVM


def distances(clf: Any, X: Array, y: Array) -> Array:
    """To the nearest plane of a linear classifier, by definition: of each class against the true one."""
    W, b = clf.coef_.astype(float), np.asarray(clf.intercept_, float)
    if len(W) == 1:
        W, b = np.stack([np.zeros_like(W[0]), W[0]]), np.array([0.0, b[0]])
    found = np.full(len(X), np.inf)
    for c in range(len(W)):
        w, offset = W[y] - W[c], b[y] - b[c]
        other = y != c
        margin = (w * X).sum(axis=1) + offset
        found[other] = np.minimum(found, margin / np.linalg.norm(w, axis=1).clip(1e-300))[other]
    return found


LINEAR = {
    "ours": LinearSVM(), "LinearSVC": LinearSVC(dual=False), "SVC": SVC(kernel="linear"),
    "LogisticRegression": LogisticRegression(),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_linear_classifiers_are_fooled_at_exactly_their_distance(name: str, dtype: Any, n_classes: int) -> None:
    X, y = blobs(n_classes=n_classes, dtype=dtype)
    if n_classes == 3 and name == "SVC":
        pytest.skip("one against one: no decision of each class")
    clf = LINEAR[name].fit(X, y)
    r = gradient_attack(clf, X, y)
    right = clf.predict(X) == y
    np.testing.assert_array_equal(r.already_wrong, ~right)
    assert r.settings["path"] == "closed-form"
    assert r.success[right].all()
    assert (r.n_steps[right] == 1).all()
    narrow = dtype == np.float32
    close(r.l2[right], distances(clf, X.astype(float), y)[right], rtol=1e-4 if narrow else 1e-9, atol=2e-6 * narrow)
    # The classifier itself, in the dtype that was returned, alone and in a batch.
    assert r.x_adv.dtype == dtype
    assert (clf.predict(r.x_adv)[right] == r.y_adv[right]).all()
    assert (r.y_adv != y)[right].all()
    for i in np.flatnonzero(right)[:10]:
        assert clf.predict(r.x_adv[i : i + 1])[0] == r.y_adv[i]


def test_the_walk_reaches_what_the_closed_form_knows() -> None:
    X, y = blobs()
    clf = LinearSVM().fit(X, y)
    exact, walked = gradient_attack(clf, X, y), gradient_attack(clf, X, y, path="features", polish=True)
    close(exact.l2[exact.success], walked.l2[exact.success], rtol=1e-7)
    assert walked.settings["path"] == "features"


def test_bounds_make_a_linear_classifier_a_walk(caplog: pytest.LogCaptureFixture) -> None:
    X, y = blobs()
    clf, box = LinearSVM().fit(X, y), (float(X.min()), float(X.max()))
    with caplog.at_level(logging.INFO, "mfakit"):
        r = gradient_attack(clf, X, y, bounds=box, polish=True)
    assert "the path in the d features: bounds clip single features" in caplog.text
    assert r.settings["path"] == "features"
    assert r.success[~r.already_wrong].all()
    assert box[0] <= r.x_adv.min()
    assert r.x_adv.max() <= box[1]
    assert (r.l2[r.success] >= gradient_attack(clf, X, y).l2[r.success] * (1 - 1e-9)).all()
    with pytest.raises(ValueError, match='path="closed-form" cannot be taken: bounds clip'):
        gradient_attack(clf, X, y, bounds=box, path="closed-form")
    with pytest.raises(ValueError, match='path="factor" cannot be taken: LinearSVM is not a BayesClassifier'):
        gradient_attack(clf, X, y, path="factor")
    with pytest.raises(ValueError, match='path="closed-form" cannot be taken: RBFSVM is not linear'):
        gradient_attack(RBFSVM(gamma=1.0).fit(X, y), X, y, path="closed-form")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_on_the_plane_and_at_the_origin_are_fooled(dtype: Any) -> None:
    """Within rounding of the boundary there is still a next number beyond it."""
    clf = LinearSVM(C=1e6).fit(np.array([[-1.0, 0.0], [1.0, 0.0], [-1.0, 1.0], [1.0, 1.0]]), [0, 1, 0, 1])
    X = np.array([[0.0, 0.0], [0.0, 7.0], [-1e-9, 3.0], [-1e-13, 1.0], [1e-7, 5.0]], dtype)
    r = gradient_attack(clf, X)
    assert r.success.all()
    assert (clf.predict(r.x_adv) != clf.predict(X)).all()
    assert (r.l2 < 1e-5).all()


def test_a_constant_classifier_has_no_gradient() -> None:
    X, y = blobs(d=2)
    clf = LogisticRegression().fit(X, y)
    clf.coef_ = np.zeros_like(clf.coef_)
    clf.intercept_ = np.array([1.0])
    r = gradient_attack(clf, X[:3], [1, 1, 0])
    assert r.reason.tolist() == ["no gradient", "no gradient", "already wrong"]
    np.testing.assert_array_equal(r.x_adv, X[:3])


class NotWhatItSeems:
    """coef_ that its decisions are not made of."""

    classes_, coef_, intercept_ = np.array([0, 1]), np.array([[1.0, 0.0]]), np.array([0.0])

    def decision_function(self, X: Array) -> Array:
        return X[:, 0] ** 3 - 1

    def decision_gradient(self, X: Array) -> Array:
        return np.stack([3 * X[:, 0] ** 2, 0 * X[:, 0]], axis=1)


def test_weights_are_believed_only_if_the_decisions_are_theirs() -> None:
    r = gradient_attack(NotWhatItSeems(), np.array([[0.5, 0.0]]), polish=True)
    assert r.settings["path"] == "features"
    np.testing.assert_allclose(r.l2, 0.5, rtol=1e-9)
