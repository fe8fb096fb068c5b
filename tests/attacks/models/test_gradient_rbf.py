"""The gradient attack on RBF machines: as their formula says, and where their kernels underflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.svm import SVC
from support import Array, blobs, close

from mfakit.attacks import gradient_attack
from mfakit.classifiers import RBFSVM, LinearSVM


def shells(n: int = 200, d: int = 5) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, d))
    y = np.arange(n) % 2
    return X / np.linalg.norm(X, axis=1, keepdims=True) * (1 + y[:, None]), y


class Loop:
    """An RBF machine as its formula, sample by sample."""

    def __init__(self, svm: Any) -> None:
        self.svm, self.classes_ = svm, svm.classes_

    def decision_function(self, X: Array) -> Array:
        s = self.svm
        K = np.exp(-s.gamma_ * np.array([((x - s.support_vectors_) ** 2).sum(axis=1) for x in X]))
        return K @ s.dual_coef_[0] + s.intercept_[0]

    def decision_gradient(self, X: Array) -> Array:
        s, g = self.svm, np.empty_like(X)
        for i, x in enumerate(X):
            difference = x - s.support_vectors_
            g[i] = -2 * s.gamma_ * (s.dual_coef_[0] * np.exp(-s.gamma_ * (difference**2).sum(axis=1))) @ difference
        return g


def test_an_rbf_machine_is_walked_as_its_formula_says() -> None:
    X, y = shells()
    svm = RBFSVM(gamma=0.5).fit(X, y)
    ours, formula = (gradient_attack(m, X[:20], y[:20], step_size=0.02, polish=True) for m in (svm, Loop(svm)))
    assert ours.success.all()
    np.testing.assert_array_equal(ours.n_steps, formula.n_steps)
    close(ours.x_adv, formula.x_adv, atol=1e-8)
    assert 0.3 < ours.mean_l2 < 0.7  # the shells are 1 apart


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scikit_learns_rbf_machine_is_one_too(dtype: Any) -> None:
    X, y = shells()
    X = X.astype(dtype)
    ours, theirs = RBFSVM(gamma=0.5).fit(X, y), SVC(gamma=0.5).fit(X, y)
    a, b = (gradient_attack(clf, X[:30], y[:30], step_size=0.02, polish=True) for clf in (ours, theirs))
    close(a.l2, b.l2, rtol=1e-5)
    for clf, r in ((ours, a), (theirs, b)):
        assert r.success.all()
        for batch in (X[:0], X[:7]):
            again = clf.predict(np.concatenate([r.x_adv, batch]))[:30]
            np.testing.assert_array_equal(again, r.y_adv)
        assert (r.y_adv != y[:30]).all()
    with pytest.raises(TypeError, match="SVC is not fitted; call fit first"):
        gradient_attack(SVC(), X)
    with pytest.raises(TypeError, match="SVC has kernel='poly'; kernels that are taken are 'rbf' and 'linear'"):
        gradient_attack(SVC(kernel="poly").fit(X, y), X)


def test_rbf_machines_of_three_classes() -> None:
    X, y = blobs(n_classes=3)
    svm = RBFSVM(gamma=0.1).fit(X, y)
    for direction, least in (("gradient", 0.9), ("log-ratio", 1.0)):  # a few walk away by the plain gradient
        r = gradient_attack(svm, X, y, polish=True, direction=direction, max_steps=500)
        assert r.success_rate >= least
        np.testing.assert_array_equal(svm.predict(r.x_adv)[r.success], r.y_adv[r.success])


def far_machine() -> Any:
    """One bump of each class and the intercept 0.01: far from both the decision is class 1."""
    svm = RBFSVM(gamma=1.0).fit(np.array([[0.0, 0.0], [3.0, 0.0]]), [0, 1])
    svm.intercept_[:] = 0.01
    svm.kernel_machine.intercept[:] = 0.01
    return svm


def test_where_kernels_underflow_there_is_no_gradient() -> None:
    """exp(-1600) is 0 in float64: the attack cannot move, says so, and returns the sample."""
    svm, X = far_machine(), np.array([[0.0, 40.0], [1.7, 0.0]])
    r = gradient_attack(svm, X, [1, 1])
    assert r.reason.tolist() == ["no gradient", "flipped"]
    assert r.success.tolist() == [False, True]
    np.testing.assert_array_equal(r.x_adv[0], X[0])
    assert r.n_steps[0] == 0
    assert r.adversarial_accuracy == 0.5


def test_a_tiny_gradient_still_has_a_direction() -> None:
    """At 22 the kernels are 1e-211: their squares are 0, and a step of theirs must be of full length all the same."""
    svm = far_machine()
    assert 0 < np.abs(svm.decision_gradient(np.array([[0.0, 22.0]]))).max() < 1e-160
    r = gradient_attack(svm, np.array([[0.0, 22.0]]), [1], step_size=0.5, polish=True)
    assert r.reason.tolist() == ["flipped"]
    np.testing.assert_allclose(r.l2, 22 - np.sqrt(-np.log(0.01)), rtol=1e-5)  # where K = 0.01 cancels the intercept


def test_a_sample_that_walks_away_ends_without_a_gradient_and_the_log_ratio_brings_it_across() -> None:
    """Class 1 wherever nothing is near: pushed away from its own bump a sample walks until every kernel underflows."""
    svm, X = far_machine(), np.array([[3.5, 0.0]])
    lost = gradient_attack(svm, X, [1], step_size=0.2)
    assert lost.reason.tolist() == ["no gradient"]
    assert 26 < 0.2 * lost.n_steps[0] < 28  # e^(-27.3²) is the smallest number
    early = gradient_attack(svm, X, [1], step_size=0.2, max_steps=50)
    assert early.reason.tolist() == ["max_steps"]
    found = gradient_attack(svm, X, [1], step_size=0.2, direction="log-ratio", polish=True)
    assert found.success.all()
    assert found.x_adv[0, 0] < 1.6
    assert found.settings["direction"] == "log-ratio"


def test_a_flip_must_exceed_rounding() -> None:
    """Where the decision is the intercept to rounding, a change of its last bit is no success."""
    svm = far_machine()
    svm.intercept_[:] = svm.kernel_machine.intercept[:] = 0.0
    X = np.array([[1.5, 0.3]])  # on the boundary by symmetry
    f = svm.decision_function(X)[0]
    assert abs(f) < 1e-15
    r = gradient_attack(svm, X, polish=True)
    assert r.success.all()
    assert abs(svm.decision_function(r.x_adv)[0]) > 1e-15


def test_a_log_ratio_needs_a_machine_of_kernels() -> None:
    X, y = blobs()
    with pytest.raises(ValueError, match='direction="log-ratio" is for RBF machines, got a LinearSVM'):
        gradient_attack(LinearSVM().fit(X, y), X, y, direction="log-ratio")
    with pytest.raises(ValueError, match="direction must be one of"):
        gradient_attack(LinearSVM().fit(X, y), X, y, direction="up")


@pytest.mark.parametrize("kind", ["linear", "rbf", "generic"])
def test_a_samples_result_does_not_depend_on_its_batch(kind: str) -> None:
    X, y = shells() if kind != "linear" else blobs()
    X, y = X[:24], y[:24]
    clf: Any = LinearSVM().fit(X, y) if kind == "linear" else RBFSVM(gamma=0.5).fit(X, y)
    clf = Loop(clf) if kind == "generic" else clf
    whole = gradient_attack(clf, X, y, polish=True)
    for size in (1, 7):
        part = gradient_attack(clf, X, y, polish=True, block_rows=size)
        np.testing.assert_array_equal(part.n_steps, whole.n_steps)
        np.testing.assert_array_equal(part.reason, whole.reason)
        close(part.x_adv, whole.x_adv, rtol=1e-9, atol=1e-11)
