"""MFAClassifier: scikit-learn's checks, its densities, labels of any kind, and attacks on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.utils.estimator_checks import parametrize_with_checks
from support import blobs, close

import mfakit

Array = NDArray[Any]
Classifier = mfakit.MFAClassifier

FIRST_OF_ALL = "mfakit promises a TypeError that names the dtype for all its array arguments"
EXPECTED_FAILURES = {
    "check_complex_data": f"expects a ValueError for complex data; {FIRST_OF_ALL}",
    "check_dtype_object": f"expects object arrays to be converted; {FIRST_OF_ALL}",
}


@pytest.mark.filterwarnings("ignore:.* features have no variance:UserWarning")
@parametrize_with_checks(
    [Classifier(), Classifier(noise="diagonal", n_factors=0), Classifier(missing="marginal")],
    expected_failed_checks=lambda _: EXPECTED_FAILURES,
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    if getattr(check, "keywords", {}).get("X_dtype") == "float32" and estimator.noise == "diagonal":
        # It compares predict_log_proba with the logarithm of float32 probabilities, which have lost what is left of 1.
        with pytest.raises(AssertionError, match="Not equal to tolerance rtol=8, atol=1e-09"):
            check(estimator)
        return
    check(estimator)


@pytest.fixture(scope="module")
def data() -> tuple[Array, Array]:
    return blobs(300, n_classes=3)


def test_without_factors_it_is_gaussian_naive_bayes(data: tuple[Array, Array]) -> None:
    X, y = data
    ours, theirs = (
        Classifier(1, 0, noise="diagonal", tol=1e-9).fit(X, y),
        GaussianNB(var_smoothing=0).fit(X, y),
    )
    close(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-8, atol=1e-10)
    close(ours.predict_log_proba(X), theirs.predict_log_proba(X), rtol=1e-8, atol=1e-10)
    close(ours.class_prior_, theirs.class_prior_, rtol=1e-14)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.score(X, y) == theirs.score(X, y)


def test_with_missing_values_it_is_naive_bayes_of_the_others(data: tuple[Array, Array]) -> None:
    X, y = data
    missing = np.random.default_rng(0).uniform(size=X.shape) < 0.3
    missing[:, 0] &= ~missing.all(axis=1)
    gaps = np.where(missing, np.nan, X)
    clf = Classifier(1, 0, noise="diagonal", missing="marginal", tol=1e-13, max_iter=500).fit(gaps, y)
    joint = []
    for c in range(3):
        rows = gaps[y == c]
        mean, variance = np.nanmean(rows, axis=0), np.nanvar(rows, axis=0)
        terms = -0.5 * (np.log(2 * np.pi * variance) + (gaps - mean) ** 2 / variance)
        joint.append(np.nansum(terms, axis=1) + np.log((y == c).mean()))
    close(clf.decision_function(gaps), np.stack(joint, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(clf.predict(gaps), np.argmax(joint, axis=0))
    gaps[y == 1, 0] = np.nan
    some = ~np.isnan(gaps).all(axis=1)
    with pytest.raises(ValueError, match=r"feature 0 is missing in every row of class 1, .*; leave it out"):
        clone(clf).fit(gaps[some], y[some])
    with pytest.raises(ValueError, match='missing="marginal"'):
        Classifier().fit(gaps, y)


def test_each_class_is_fitted_to_its_own_rows(data: tuple[Array, Array]) -> None:
    X, y = data
    clf = Classifier(2, 1, random_state=0).fit(X, y)
    moved = X.copy()
    moved[y != 1] += 5.0
    other = Classifier(2, 1, random_state=0).fit(moved, y)
    np.testing.assert_array_equal(clf.bayes_.mixtures[1].means, other.bayes_.mixtures[1].means)
    assert clf.bayes_.mixtures[0].log_prob(X[y == 0]).mean() > clf.bayes_.mixtures[0].log_prob(X[y == 1]).mean()
    assert clf.n_iter_.shape == clf.converged_.shape == (3,)


@pytest.mark.parametrize("labels", [["b", "a", "c"], [7, 3, 9], [True, False], [2.0, 1.0, 4.0], [-1, 1]])
def test_labels_of_any_kind(labels: list[Any]) -> None:
    X, codes = blobs(90, n_classes=len(labels))
    y = np.array(labels)[codes]
    clf = Classifier().fit(X, y)
    np.testing.assert_array_equal(clf.classes_, sorted(labels))
    assert clf.predict(X).dtype == y.dtype
    assert clf.score(X, y) > 0.8
    assert clf.score(X, y) == (clf.predict(X) == y).mean()
    columns = clf.classes_[clf.predict_proba(X).argmax(axis=1)]
    np.testing.assert_array_equal(columns, clf.predict(X))


def test_components_by_number_by_class_and_by_label(data: tuple[Array, Array]) -> None:
    X, y = data
    names = np.array(["x", "y", "z"])[y]
    for n_components in ([1, 2, 3], {"z": 3, "x": 1, "y": 2}, np.array([1, 2, 3])):
        mixtures = Classifier(n_components, 1, random_state=0).fit(X, names).bayes_.mixtures
        assert [m.n_components for m in mixtures] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"n_components must name the classes \['x', 'y', 'z'\], got \['x'\]"):
        Classifier({"x": 1}).fit(X, names)
    with pytest.raises(ValueError, match="one number for each of 3 classes, got 2"):
        Classifier([1, 2]).fit(X, names)
    with pytest.raises(ValueError, match="class 'y' has 100 with a positive weight"):
        Classifier([1, 101, 1]).fit(X, names)
    with pytest.raises(ValueError, match="integer of at least 1"):
        Classifier([1, 0, 1]).fit(X, names)


def test_priors_are_given_or_counted(data: tuple[Array, Array]) -> None:
    X, y = data
    weights = np.where(y == 2, 2.0, 1.0)
    close(Classifier().fit(X, y).class_prior_, np.full(3, 1 / 3), rtol=1e-14)
    close(Classifier().fit(X, y, weights).class_prior_, np.array([0.25, 0.25, 0.5]), rtol=1e-14)
    close(Classifier(priors=[0.2, 0.3, 0.5]).fit(X, y).class_prior_, np.array([0.2, 0.3, 0.5]), rtol=1e-14)
    with pytest.raises(ValueError, match="priors"):
        Classifier(priors=[0.5, 0.5]).fit(X, y)


def test_a_class_without_weight_is_no_class(data: tuple[Array, Array]) -> None:
    X, y = data
    clf = Classifier().fit(X, y, sample_weight=(y != 2).astype(float))
    np.testing.assert_array_equal(clf.classes_, [0, 1])
    with pytest.raises(ValueError, match="one class only, 0"):
        Classifier().fit(X, y, sample_weight=(y == 0).astype(float))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(300, int), "y has one class only"),
        (np.where(np.arange(300) == 7, np.nan, 1.0), "y contains NaN"),
        (np.linspace(0, 1, 300), "Unknown label type"),
        (np.array([None, "a", 3] * 100, object), "labels of one kind, got values of NoneType, int, str"),
        (np.array([None, "a", "b"] * 100, object), "labels of one kind, got values of NoneType, str"),
        (np.zeros(10, int), "inconsistent numbers: 300 and 10"),
        (None, "requires y to be passed"),
    ],
)
def test_labels_that_are_none(data: tuple[Array, Array], y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier().fit(data[0], y)


def test_bad_rows_are_numbered_in_X(data: tuple[Array, Array]) -> None:
    X, y = data[0].copy(), data[1]
    X[200, 3] = np.nan
    with pytest.raises(ValueError, match="row 200"):
        Classifier().fit(X, y)


def test_it_is_searched_and_cloned(data: tuple[Array, Array]) -> None:
    X, y = data
    search = GridSearchCV(Classifier(random_state=0), {"n_components": [1, 2], "n_factors": [0, 1]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.8
    assert clone(search.best_estimator_).get_params()["random_state"] == 0


def test_attacks_and_certificates_take_it(data: tuple[Array, Array]) -> None:
    X, y = data[0][data[1] < 2], data[1][data[1] < 2]
    clf = Classifier(2, 1, random_state=0).fit(X, y)
    attack = mfakit.attacks.gradient_attack(clf, X[:8], y[:8], polish=True)
    same = mfakit.attacks.gradient_attack(clf.bayes_, X[:8], y[:8], polish=True)
    np.testing.assert_array_equal(attack.x_adv, same.x_adv)
    minimal = mfakit.attacks.minimal_perturbation(clf, X[:8], y[:8])
    assert minimal.classifier == attack.classifier != ""
    assert (minimal.lower <= attack.l2)[attack.success].all()


def test_attacks_know_its_labels(data: tuple[Array, Array]) -> None:
    X, codes = data[0][data[1] < 2], data[1][data[1] < 2]
    y = np.array(["no", "yes"])[codes]
    clf = Classifier(random_state=0).fit(X, y)
    result = mfakit.attacks.gradient_attack(clf, X[:8], y[:8], step_size=0.05)
    np.testing.assert_array_equal(result.y, codes[:8])
    assert result.success_rate == 1.0
    assert (clf.predict(result.x_adv)[result.success] != y[:8][result.success]).all()
