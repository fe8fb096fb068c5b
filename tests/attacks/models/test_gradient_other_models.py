"""The gradient attack on anything with a decision and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import Array, blobs

import mfakit
from mfakit.attacks import gradient_attack
from mfakit.classifiers import RBFSVM, LinearSVM


class Network:
    """A smooth model of C classes that computes in `inner` and returns `outer`."""

    def __init__(self, n_classes: int = 3, inner: Any = np.float32, outer: Any = None, classes: Any = None) -> None:
        rng = np.random.default_rng(1)
        self.W, self.V = rng.normal(size=(8, 4)), rng.normal(size=(n_classes, 8))
        self.inner, self.outer = inner, outer
        if classes is not None:
            self.classes_ = np.array(classes)

    def decision_function(self, X: Array) -> Array:
        h = np.tanh(X.astype(self.inner) @ self.W.T.astype(self.inner))
        z = h @ self.V.T.astype(self.inner)
        return z.astype(self.outer or X.dtype)

    def decision_gradient(self, X: Array) -> Array:
        h = np.tanh(X.astype(self.inner) @ self.W.T.astype(self.inner))
        return np.einsum("ch,nh,hd->ncd", self.V, 1 - h**2, self.W).astype(X.dtype)


@pytest.mark.parametrize("inner", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_success_is_verified_in_what_the_model_computes_in(inner: Any, dtype: Any) -> None:
    net = Network(inner=inner)
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(dtype)
    y = net.decision_function(X).argmax(axis=1)
    r = gradient_attack(net, X, y, polish=True)
    assert r.success.mean() > 0.9
    after = net.decision_function(r.x_adv)
    np.testing.assert_array_equal(after.argmax(axis=1)[r.success], r.y_adv[r.success])
    margins = after[np.arange(60), r.y_adv] - after[np.arange(60), y]
    narrow = np.float32 in (inner, dtype)
    assert (margins[r.success] > (1e-7 if narrow else 1e-16)).all()  # by more than the next batch may round
    assert (margins[r.success] < (1e-3 if narrow else 1e-11)).all()  # and by no more than that takes


def test_labels_are_the_classifiers_own() -> None:
    net = Network(classes=["a", "b", "c"])
    X = np.random.default_rng(0).normal(size=(9, 4))
    codes = net.decision_function(X).argmax(axis=1)
    r = gradient_attack(net, X, np.array(["a", "b", "c"])[codes])
    np.testing.assert_array_equal(r.y, codes)
    assert not r.already_wrong.any()
    with pytest.raises(ValueError, match="y must hold the classes a, b, c of this classifier, got values d"):
        gradient_attack(net, X, ["d"] * 9)
    with pytest.raises(ValueError, match="one label per sample"):
        gradient_attack(net, X, ["a"])
    X, y = blobs()
    svm = LinearSVM().fit(X, 3 + 4 * y)
    np.testing.assert_array_equal(gradient_attack(svm, X, 3 + 4 * y).y, y)
    with pytest.raises(ValueError, match="classes 3, 7 of this classifier, got values 0, 1"):
        gradient_attack(svm, X, y)


def test_frozen_targets_keep_the_first_class() -> None:
    net = Network()
    X = np.random.default_rng(0).normal(size=(30, 4))
    rechosen, frozen = (gradient_attack(net, X, targets=t, max_steps=300) for t in ("rechosen", "frozen"))
    joint = net.decision_function(X)
    joint[np.arange(30), rechosen.y] = -np.inf
    np.testing.assert_array_equal(frozen.target_class, joint.argmax(axis=1))
    assert rechosen.success.sum() >= frozen.success.sum() > 0


def test_classes_are_counted_by_the_decisions_where_nothing_says_so() -> None:
    X = np.random.default_rng(0).normal(size=(5, 4))
    y = np.full(5, 2)
    assert gradient_attack(Network(), X, y, max_steps=5).y.tolist() == [2] * 5
    with pytest.raises(ValueError, match=r"decision_function must return \[5, 1\], or \[5\] for two classes"):
        gradient_attack(Network(n_classes=1), X)
    with pytest.raises(ValueError, match=r"must return \[5, 4\].* got \(5, 3\)"):
        gradient_attack(Network(classes=[0, 1, 2, 3]), X)


class Undecided(Network):
    """NaN beyond a plane, and at some samples from the start."""

    def decision_function(self, X: Array) -> Array:
        z = super().decision_function(X)
        z[np.abs(X[:, 0]) > 1] = np.nan
        return z


def test_nan_decisions_fail_with_a_reason_and_the_others_go_on() -> None:
    net = Undecided(inner=np.float64)
    X = np.random.default_rng(0).normal(size=(40, 4)) * 0.6
    X[0, 0] = 2.0
    r = gradient_attack(net, X, polish=True)
    assert r.reason[0] == "NaN logits"
    assert r.already_wrong[0]
    assert {"NaN logits", "flipped"} <= set(r.reason[1:])
    assert np.isfinite(net.decision_function(r.x_adv[r.success])).all()
    np.testing.assert_array_equal(r.x_adv[~r.success], X[~r.success])


class Infinite(Network):
    def decision_gradient(self, X: Array) -> Array:
        return np.full((len(X), 3, 4), np.inf)


def test_an_infinite_gradient_cannot_move_either() -> None:
    with np.errstate(invalid="ignore"):
        r = gradient_attack(Infinite(), np.random.default_rng(0).normal(size=(3, 4)))
    assert r.reason.tolist() == ["no gradient"] * 3


def test_a_network_of_torch() -> None:
    pytest.importorskip("torch")
    sym = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    X, y = sym.sample(300, rng=0, balanced=True)
    cnn = mfakit.classifiers.CNN(width=4, depth=3, epochs=3, random_state=0, progress=False).fit(X, y)
    r = gradient_attack(cnn, X[:20], y[:20], polish=True, max_steps=300)
    assert r.success[~r.already_wrong].all()
    np.testing.assert_array_equal(cnn.predict(r.x_adv)[r.success], r.y_adv[r.success])
    assert r.x_adv.dtype == np.float32


def test_nothing_to_attack() -> None:
    X, y = blobs()
    for clf in (LinearSVM().fit(X, y), RBFSVM(gamma=0.1).fit(X, y), Network()):
        r = gradient_attack(clf, np.zeros((0, 4 if isinstance(clf, Network) else 6), np.float32), [])
        assert len(r) == 0
