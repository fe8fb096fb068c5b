"""Classifiers are taken for what they compute: linear ones in every shape that scikit-learn has, kernel machines fitted
to sparse samples, and wrappers of both; what only looks like a classifier is refused with the reason, everywhere alike.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import RFE, SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Perceptron,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, RobustScaler, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, OneClassSVM
from support import Array, close

import mfakit
from mfakit.attacks import carlini_wagner_l2, gradient_attack
from mfakit.classifiers import LinearSVM

NAMES = np.array(["cat", "dog", "owl"])


@cache
def samples(n_classes: int) -> tuple[Array, Array]:
    """Overlapping clouds off the origin, with words for labels."""
    rng = np.random.default_rng(0)
    codes = np.arange(60) % n_classes
    return 2.0 + rng.normal(size=(60, 5)) + 1.5 * np.eye(5)[codes], NAMES[codes]


LINEAR = {
    "LinearSVC without intercept": LinearSVC(fit_intercept=False, random_state=0),
    "Crammer and Singer": LinearSVC(C=0.01, multi_class="crammer_singer", max_iter=20_000, random_state=0),
    "Ridge": RidgeClassifier(),
    "Ridge without intercept": RidgeClassifier(fit_intercept=False),
    "RidgeCV": RidgeClassifierCV(),
    "LogisticRegression": LogisticRegression(),
    "Perceptron": Perceptron(random_state=0),
    "SGD hinge": SGDClassifier(random_state=0),
    "SGD squared error": SGDClassifier(loss="squared_error", learning_rate="invscaling", eta0=1e-3, random_state=0),
    "LDA": LinearDiscriminantAnalysis(),
    "NearestCentroid": NearestCentroid(),
    "NearestCentroid with priors": NearestCentroid(priors="empirical"),
    "one against rest": OneVsRestClassifier(LogisticRegression()),
    "calibrated": CalibratedClassifierCV(LinearSVC(), ensemble=False, cv=3),
    "calibrated by temperature": CalibratedClassifierCV(LinearSVC(), ensemble=False, cv=3, method="temperature"),
    "RFE": RFE(LogisticRegression(), n_features_to_select=3),
    "search": GridSearchCV(make_pipeline(StandardScaler(), RidgeClassifier()), {"ridgeclassifier__alpha": [1]}, cv=2),
    "scaled": make_pipeline(StandardScaler(), LogisticRegression()),
    "scaled, no mean": make_pipeline(StandardScaler(with_mean=False), LinearSVC()),
    "ranges": make_pipeline(MinMaxScaler(), "passthrough", LinearSVC()),
    "robust": make_pipeline(RobustScaler(), MaxAbsScaler(), LogisticRegression()),
    "whitened": make_pipeline(StandardScaler(), PCA(3, whiten=True), LogisticRegression()),
    "nested": make_pipeline(make_pipeline(SelectKBest(k=4), TruncatedSVD(2)), LinearSVM()),
}


def expected_distances(clf: Any, X: Array) -> Array:
    """To the nearest plane between two classes, from decisions alone: they are affine, so that their values at the
    samples' mean and one unit along each axis give their slopes.
    """
    middle = X.mean(axis=0)
    f = clf.decision_function(np.concatenate([middle[None], middle + np.eye(X.shape[1]), X]))
    f = np.stack([np.zeros_like(f), f], axis=1) if f.ndim == 1 else f
    slopes, f = (f[1 : 1 + X.shape[1]] - f[0]).T, f[1 + X.shape[1] :]
    best, rows = f.argmax(axis=1), np.arange(len(X))
    gaps, lengths = f[rows, best][:, None] - f, np.linalg.norm(slopes[best][:, None] - slopes[None], axis=2)
    gaps[rows, best], lengths[rows, best] = np.inf, 1.0
    return (gaps / lengths).min(axis=1)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_classifiers_are_fooled_at_their_distance_in_one_step(name: str, n_classes: int) -> None:
    X, y = samples(n_classes)
    clf = LINEAR[name].fit(X, y)
    r = gradient_attack(clf, X, y)
    assert r.settings["path"] == "closed-form"
    np.testing.assert_array_equal(r.already_wrong, clf.predict(X) != y)
    assert r.success[~r.already_wrong].all()
    assert (clf.predict(r.x_adv) != y)[r.success].all()
    if hasattr(clf, "decision_function") and "Centroid" not in name:  # whose decisions are quadratic, each by itself
        close(r.l2[r.success], expected_distances(clf, X)[r.success], rtol=1e-9)
    # Nothing shorter is labelled otherwise: the same way, a little less of it.
    short = X + (1 - 1e-6) * (r.x_adv - X)
    assert (clf.predict(short) == y)[r.success].all()


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", ["LinearSVC without intercept", "Ridge", "calibrated", "whitened", "NearestCentroid"])
def test_the_module_decides_as_the_classifier(name: str, n_classes: int) -> None:
    torch = pytest.importorskip("torch")
    X, y = samples(n_classes)
    clf = LINEAR[name].fit(X, y)
    logits = mfakit.torch.SVMModule(clf)(torch.from_numpy(X))
    assert logits.shape == (len(X), n_classes)
    np.testing.assert_array_equal(clf.classes_[logits.argmax(dim=1).numpy()], clf.predict(X))


def test_carlini_and_wagner_attack_what_the_gradient_attack_attacks() -> None:
    pytest.importorskip("torch")
    X, y = samples(3)
    X, y = X[:4], y[:4]
    clf = LINEAR["LinearSVC without intercept"].fit(*samples(3))
    exact = gradient_attack(clf, X, y)
    r = carlini_wagner_l2(
        clf, X, y, max_iterations=15, binary_search_steps=1, learning_rate=0.3, bounds=None, rescue_searches=1
    )
    np.testing.assert_array_equal(r.already_wrong, exact.already_wrong)
    assert r.success[~r.already_wrong].any()
    assert (r.l2 >= exact.l2 * (1 - 1e-9))[r.success].all()
    assert (clf.predict(r.x_adv) != y)[r.success].all()


def test_samples_in_float32_fool_the_pipeline_itself() -> None:
    """Steps round to float32 there, and the point returned is called wrong by the pipeline all the same."""
    X, y = samples(3)
    X32 = (1000 + X).astype(np.float32)
    clf = make_pipeline(StandardScaler(), LogisticRegression()).fit(X32, y)
    r = gradient_attack(clf, X32, y)
    assert r.success[~r.already_wrong].all()
    assert (clf.predict(r.x_adv) != y)[r.success].all()


KERNEL = {
    "SVC": SVC(), "gamma": SVC(gamma=0.3), "NuSVC": NuSVC(), "one against rest": OneVsRestClassifier(SVC(gamma=0.2)),
    "calibrated": CalibratedClassifierCV(SVC(), ensemble=False, cv=3),
}  # fmt: skip


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", [*KERNEL, "linear"])
def test_kernel_machines_fitted_to_dense_or_sparse_samples(name: str, sparse: bool) -> None:
    X, y = samples(2)
    clf = SVC(kernel="linear") if name == "linear" else KERNEL[name]
    clf.fit(scipy.sparse.csr_matrix(X) if sparse else X, y)
    r = gradient_attack(
        clf, X, y, max_steps=300, polish=True, direction="gradient" if name == "linear" else "log-ratio"
    )
    np.testing.assert_array_equal(r.already_wrong, clf.predict(X) != y)
    assert r.success[~r.already_wrong].all()
    assert (clf.predict(r.x_adv) != y)[r.success].all()
    torch = pytest.importorskip("torch")
    z = mfakit.torch.SVMModule(clf)(torch.from_numpy(X))
    np.testing.assert_array_equal(clf.classes_[z.argmax(dim=1).numpy()], clf.predict(X))
    if name != "calibrated":
        np.testing.assert_allclose(z[:, 1] - z[:, 0], clf.decision_function(X), rtol=1e-9, atol=1e-9)


def test_three_rbf_machines_against_the_rest() -> None:
    X, y = samples(3)
    clf = OneVsRestClassifier(SVC(gamma=0.2)).fit(X, y)
    torch = pytest.importorskip("torch")
    np.testing.assert_allclose(mfakit.torch.SVMModule(clf)(torch.from_numpy(X)), clf.decision_function(X), atol=1e-9)
    r = gradient_attack(clf, X, y, max_steps=300)
    assert (clf.predict(r.x_adv) != y)[r.success].all()
    assert r.success.any()


def fit(clf: Any, n_classes: int = 2) -> Any:
    X, y = samples(n_classes)
    return clf.fit(X, y)


def fit_numbers(model: Any) -> Any:
    X, _ = samples(2)
    return model.fit(X, X[:, 0])


class OwnRegressor:
    """Somebody's own, without scikit-learn: weights and an intercept, but no classes."""

    coef_, intercept_ = np.ones(5), 0.0

    def predict(self, X: Array) -> Array:
        return X @ self.coef_


REFUSED = {
    "Ridge": (lambda: fit_numbers(Ridge()), "Ridge is a regressor, not a classifier"),
    "LinearRegression": (lambda: fit_numbers(LinearRegression()), "LinearRegression is a regressor"),
    "SVR": (lambda: fit_numbers(SVR()), "SVR is a regressor"),
    "SGDRegressor": (lambda: fit_numbers(SGDRegressor()), "SGDRegressor is a regressor"),
    "pipeline": (lambda: fit_numbers(make_pipeline(StandardScaler(), Ridge())), "Pipeline is a regressor"),
    "search": (lambda: fit_numbers(GridSearchCV(Ridge(), {"alpha": [1]}, cv=2)), "GridSearchCV is a regressor"),
    "own": (OwnRegressor, "OwnRegressor is not recognised .* no classes_"),
    "KMeans": (lambda: fit_numbers(KMeans(2)), "KMeans is a clusterer"),
    "OneClassSVM": (lambda: fit_numbers(OneClassSVM()), "OneClassSVM is an outlier detector"),
    "scaler": (lambda: fit_numbers(StandardScaler()), "StandardScaler is a transformer"),
    "density": (mfakit.MixtureOfFactorAnalyzers, "MixtureOfFactorAnalyzers is a density estimator"),
    "mixture": (lambda: mfakit.MFA([1.0], np.zeros((1, 5)), np.zeros((1, 5, 1)), 1.0), "make a BayesClassifier of"),
    "class": (lambda: SVC, "SVC is a class, not a fitted classifier"),
    "unfitted": (LogisticRegression, "LogisticRegression is not fitted; call fit first"),
    "unfitted pipeline": (lambda: make_pipeline(StandardScaler(), SVC()), "Pipeline is not fitted; call fit first"),
    "unfitted search": (lambda: GridSearchCV(SVC(), {"C": [1]}), "GridSearchCV is not fitted; call fit first"),
    "unfitted, ours": (LinearSVM, "LinearSVM is not fitted; call fit first"),
    "no refit": (lambda: fit(GridSearchCV(SVC(), {"C": [1]}, cv=2, refit=False)), "search with refit=True"),
    "poly": (lambda: fit(SVC(kernel="poly")), "SVC has kernel='poly'; kernels that are taken are 'rbf' and 'linear'"),
    "callable": (lambda: fit(SVC(kernel=lambda a, b: a @ b.T)), "SVC has a kernel function of its own"),
    "precomputed": (lambda: SVC(kernel="precomputed").fit(np.eye(4), [0, 1, 0, 1]), "input is a kernel matrix"),
    "pairs": (lambda: fit(SVC(kernel="linear"), 3), r"votes .* take OneVsRestClassifier\(SVC.* or .*LinearSVM"),
    "one against one": (lambda: fit(OneVsOneClassifier(LinearSVC()), 3), "votes of machines for each pair"),
    "ensemble": (lambda: fit(CalibratedClassifierCV(LinearSVC(), cv=2)), "averages .* fit it with ensemble=False"),
    "isotonic": (
        lambda: fit(CalibratedClassifierCV(LinearSVC(), cv=2, ensemble=False, method="isotonic")), "method='isotonic'",
    ),
    "normalised": (lambda: fit(make_pipeline(Normalizer(), LinearSVC())), r"the step Normalizer \('normalizer'\)"),
    "clipped": (lambda: fit(make_pipeline(MinMaxScaler(clip=True), LinearSVC())), "MinMaxScaler .*or clips"),
    "scaled kernel": (lambda: fit(make_pipeline(StandardScaler(), SVC())), "puts StandardScaler .*attack the last one"),
    "manhattan": (lambda: fit(NearestCentroid(metric="manhattan")), "metric='manhattan', with which it is not linear"),
    "threshold": (lambda: fit(FixedThresholdClassifier(LogisticRegression())), "moves the threshold .*its estimator_"),
    "naive Bayes": (lambda: fit(GaussianNB()), "GaussianNB is not recognised .* no coef_"),
    "number": (lambda: 3, "int is not recognised"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_such_classifier_is_refused_alike_with_the_reason(name: str) -> None:
    make, reason = REFUSED[name]
    X = np.eye(4) if name == "precomputed" else samples(2)[0]
    model = make()
    uses = [lambda: gradient_attack(model, X)]
    if pytest.importorskip("torch"):
        uses += [lambda: carlini_wagner_l2(model, X), lambda: mfakit.torch.SVMModule(model)]
    for use in uses:
        with pytest.raises(TypeError, match=reason):
            use()


def test_a_torch_module_is_named_the_attack_that_takes_it() -> None:
    torch = pytest.importorskip("torch")
    bayes = mfakit.datasets.load_bayes_pair("mnist-06")
    for module in (torch.nn.Linear(5, 2), mfakit.torch.BayesClassifierModule(bayes)):
        with pytest.raises(TypeError, match=r"is a torch module, .* call carlini_wagner_l2"):
            gradient_attack(module, np.zeros((1, 5)))
    with pytest.raises(TypeError, match="BayesClassifier is no machine; take BayesClassifierModule"):
        mfakit.torch.SVMModule(bayes)


class Own:
    """A user's linear classifier, whose predict may not follow its decisions."""

    classes_, coef_, intercept_ = np.array([0, 1]), np.array([1.0, -2.0, 0.0, 0.0, 1.0]), 0.5

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def decision_function(self, X: Array) -> Array:
        return X @ self.coef_ + self.intercept_

    def predict(self, X: Array) -> Array:
        return (self.decision_function(X) > self.threshold).astype(int)


def test_a_users_own_class_is_compared_with_its_predict_too() -> None:
    X, _ = samples(2)
    r = gradient_attack(Own(0.0), X)
    assert r.settings["path"] == "closed-form"
    close(r.l2, np.abs(Own(0.0).decision_function(X)) / np.linalg.norm(Own.coef_), rtol=1e-9)
    with pytest.raises(TypeError, match="Own decides otherwise than its coefficients say"):
        gradient_attack(Own(0.7), X)


class OwnEstimator(BaseEstimator):  # type: ignore[misc]
    """A user's own estimator that is no ClassifierMixin and has no attributes of fitting."""

    def decision_function(self, X: Array) -> Array:
        return X[:, 0] ** 3 - 1

    def decision_gradient(self, X: Array) -> Array:
        return np.concatenate([3 * X[:, :1] ** 2, 0 * X[:, 1:]], axis=1)


def test_decisions_and_gradients_are_enough() -> None:
    r = gradient_attack(OwnEstimator(), np.full((2, 5), 0.5), polish=True)
    np.testing.assert_allclose(r.l2, 0.5, rtol=1e-9)


def test_frozen_estimators_and_widths() -> None:
    X, y = samples(2)
    clf = make_pipeline(StandardScaler(), LinearSVC()).fit(X, y)
    one, other = (gradient_attack(c, X, y).l2 for c in (clf, FrozenEstimator(clf)))
    np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"X must be \[n, 5\]"):
        gradient_attack(Own(0.0), X[:, :3])
