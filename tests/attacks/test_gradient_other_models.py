"""The gradient attack on what is no Bayes classifier: linear machines, RBF machines, anything with a gradient."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC

import mfakit
from mfakit.attacks import gradient_attack
from mfakit.classifiers import RBFSVM, LinearSVM
from mfakit.cli import main

Array = NDArray[Any]


def blobs(n: int = 120, d: int = 6, n_classes: int = 2, dtype: Any = np.float64) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    return (rng.normal(size=(n, d)) + 2 * np.eye(n_classes, d)[y]).astype(dtype), y


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
    np.testing.assert_allclose(
        r.l2[right], distances(clf, X.astype(float), y)[right], rtol=1e-4 if narrow else 1e-9, atol=2e-6 * narrow
    )
    # The classifier itself, in the dtype that was returned, alone and in a batch.
    assert r.x_adv.dtype == dtype
    assert (clf.predict(r.x_adv)[right] == r.y_adv[right]).all()
    assert (r.y_adv != y)[right].all()
    for i in np.flatnonzero(right)[:10]:
        assert clf.predict(r.x_adv[i : i + 1])[0] == r.y_adv[i]


def test_the_walk_reaches_what_the_closed_form_knows() -> None:
    X, y = blobs()
    clf = LinearSVM().fit(X, y)
    exact, walked = gradient_attack(clf, X, y), gradient_attack(clf, X, y, path="direct", polish=True)
    np.testing.assert_allclose(exact.l2[exact.success], walked.l2[exact.success], rtol=1e-7)
    assert walked.settings["path"] == "direct"


def test_bounds_make_a_linear_classifier_a_walk(caplog: pytest.LogCaptureFixture) -> None:
    X, y = blobs()
    clf, box = LinearSVM().fit(X, y), (float(X.min()), float(X.max()))
    with caplog.at_level(logging.INFO, "mfakit"):
        r = gradient_attack(clf, X, y, bounds=box, polish=True)
    assert "the direct path: bounds clip single features" in caplog.text
    assert r.settings["path"] == "direct"
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
    assert r.settings["path"] == "direct"
    np.testing.assert_allclose(r.l2, 0.5, rtol=1e-9)


# RBF machines


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
    np.testing.assert_allclose(ours.x_adv, formula.x_adv, atol=1e-8)
    assert 0.3 < ours.mean_l2 < 0.7  # the shells are 1 apart


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scikit_learns_rbf_machine_is_one_too(dtype: Any) -> None:
    X, y = shells()
    X = X.astype(dtype)
    ours, theirs = RBFSVM(gamma=0.5).fit(X, y), SVC(gamma=0.5).fit(X, y)
    a, b = (gradient_attack(clf, X[:30], y[:30], step_size=0.02, polish=True) for clf in (ours, theirs))
    np.testing.assert_allclose(a.l2, b.l2, rtol=1e-5)
    for clf, r in ((ours, a), (theirs, b)):
        assert r.success.all()
        for batch in (X[:0], X[:7]):
            again = clf.predict(np.concatenate([r.x_adv, batch]))[:30]
            np.testing.assert_array_equal(again, r.y_adv)
        assert (r.y_adv != y[:30]).all()
    with pytest.raises(TypeError, match="SVC cannot be attacked by gradient"):
        gradient_attack(SVC(), X)
    with pytest.raises(TypeError, match="SVC cannot be attacked by gradient"):
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
        np.testing.assert_allclose(part.x_adv, whole.x_adv, rtol=1e-9, atol=1e-11)


# Anything with a decision and its gradient


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


# The command line


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    X, y = blobs(d=9, dtype=np.float32)
    LinearSVM().fit(X, 5 + y).save("linear.safetensors")
    RBFSVM(gamma=0.1).fit(X, y).save("rbf.safetensors")
    np.savez("linear.npz", X=X, y=5 + y)
    np.savez("rbf.npz", X=X, y=y)

    def call(*arguments: str) -> tuple[int, str, str]:
        return main(["attack", *arguments, "--no-progress"]), *capsys.readouterr()

    return call


@pytest.mark.parametrize("kind", ["linear", "rbf"])
def test_the_command_attacks_a_trained_classifier(command: Any, kind: str, tmp_path: Path) -> None:
    status, out, err = command(f"{kind}.safetensors", "--data", f"{kind}.npz", "--polish", "--json", "a.json")
    assert (status, err) == (0, "")
    assert ("5" if kind == "linear" else "0") in [line.split()[0] for line in out.splitlines() if line.strip()]
    numbers = json.loads((tmp_path / "a.json").read_text())
    with np.load(f"{kind}.npz") as data:
        expected = gradient_attack(mfakit.classifiers.load(f"{kind}.safetensors"), data["X"], data["y"], polish=True)
    assert numbers["mean_l2"] == pytest.approx(expected.mean_l2)
    assert numbers["variant"] is None


def test_the_command_runs_cw(command: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    status, _, err = command(
        "linear.safetensors", "--data", "linear.npz", "--method", "cw", "--unbounded", "--max-iterations", "200",
        "--json", "a.json",
    )  # fmt: skip
    assert (status, err) == (0, "")
    numbers = json.loads((tmp_path / "a.json").read_text())
    with np.load("linear.npz") as data:
        exact = gradient_attack(mfakit.classifiers.load("linear.safetensors"), data["X"], data["y"])
    assert numbers["accuracy"] == exact.accuracy
    assert exact.mean_l2 * 0.999 < numbers["mean_l2"] < exact.mean_l2 * 1.02


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("linear.safetensors",), "is a LinearSVM, which has no samples of its own; give --data"),
        (("linear.safetensors", "--data", "rbf.npz"), "y must hold the classes 5, 6"),
        (("linear.safetensors", "--data", "rbf.npz", "--method", "cw"), "y must hold the classes 5, 6"),
        (("rbf.safetensors", "--data", "rbf.npz", "--confidence", "1"), "--confidence: --method gradient has no such"),
        (("rbf.safetensors", "--data", "rbf.npz", "--method", "cw", "--polish"), "--polish: --method cw has no such"),
        (("linear.safetensors", "--data", "linear.npz", "--direction", "log-ratio"), "is for RBF machines"),
        (("rbf.safetensors", "--data", "rbf.npz", "--bounds", "0", "1"), "X must lie within bounds"),
        (("mnist-06", "--method", "cw", "--unbounded", "--bounds", "0", "1"), "contradict each other"),
    ],
)
def test_bad_usage_of_the_command_is_one_line(command: Any, arguments: tuple[str, ...], match: str) -> None:
    status, out, err = command(*arguments)
    assert (status, out) == (1, "")
    assert match in err
    assert err.count("\n") == 1
