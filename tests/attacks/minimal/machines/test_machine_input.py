"""What has a bracket, and the one sentence that anything else gets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, RadiusNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from support import blobs, close

import mfakit
from mfakit.attacks import minimal_perturbation

X, Y = blobs(n=30, n_classes=2)
X3, Y3 = blobs(n=30, n_classes=3)


def by_rank(distances: Any) -> Any:
    return 1.0 / (1.0 + distances)


REFUSED = {
    "regressor": (LinearRegression(), "LinearRegression is a regressor, not a classifier"),
    "neighbours' regressor": (KNeighborsRegressor(1), "is a regressor"),
    "three neighbours": (KNeighborsClassifier(3), "n_neighbors=3, whose votes"),
    "another metric": (KNeighborsClassifier(1, metric="manhattan"), "the metric 'manhattan'"),
    "weights": (KNeighborsClassifier(1, weights=by_rank), "has weights=<function by_rank"),
    "radius": (RadiusNeighborsClassifier(1e3), "is not a classifier by its nearest neighbour"),
    "another kernel": (SVC(kernel="poly"), "kernel='poly'"),
    "pipeline": (make_pipeline(StandardScaler(), SVC()), "before a machine of RBF kernels"),
    "scaled neighbours": (make_pipeline(StandardScaler(), KNeighborsClassifier(1)), "is not recognised"),
    "tree": (DecisionTreeClassifier(), "DecisionTreeClassifier is not recognised"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_get_one_sentence_that_names_those_with_brackets(name: str) -> None:
    clf, reason = REFUSED[name]
    with pytest.raises(TypeError) as caught:
        minimal_perturbation(clf.fit(X, Y), X)
    message = str(caught.value)
    assert reason in message
    for word in (
        "is not a BayesClassifier",
        "brackets are there for BayesClassifier",
        "n_neighbors=1",
        "gradient_attack",
    ):
        assert word in message
    assert "\n" not in message
    assert "mfakit's CNN" not in message  # which is attacked, and has no bracket


def test_three_classes_by_votes_of_pairs() -> None:
    with pytest.raises(TypeError, match=r"votes of machines for each pair.*take OneVsRestClassifier"):
        minimal_perturbation(SVC().fit(X3, Y3), X3)


def test_unfitted_and_several_outputs() -> None:
    with pytest.raises(TypeError, match="KNeighborsClassifier is not fitted; call fit first"):
        minimal_perturbation(KNeighborsClassifier(1), X)
    with pytest.raises(TypeError, match="several outputs per sample"):
        minimal_perturbation(KNeighborsClassifier(1).fit(X, np.column_stack([Y, Y])), X)


MACHINES = {"linear": LogisticRegression(), "kernel": SVC(gamma=0.1), "neighbours": KNeighborsClassifier(1)}


@pytest.mark.parametrize("kind", MACHINES)
def test_samples_and_labels_are_checked(kind: str) -> None:
    clf = MACHINES[kind].fit(X, Y)
    with pytest.raises(ValueError, match=r"X must be \[n, 6\]"):
        minimal_perturbation(clf, X[:, :3])
    bad = X.copy()
    bad[2, 1] = np.nan
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 2"):
        minimal_perturbation(clf, bad)
    with pytest.raises(ValueError, match="y"):
        minimal_perturbation(clf, X, Y + 5)
    with pytest.raises(ValueError, match=r'path="factor" is for mixtures, and .* is not a BayesClassifier'):
        minimal_perturbation(clf, X, Y, path="factor")
    for name, value in (("bounds", (0.0, 1.0)), ("target", 0)):
        with pytest.raises(ValueError, match=f"{name} is for brackets of Bayes classifiers, and .* leave it out"):
            minimal_perturbation(clf, X, Y, **{name: value})
    with pytest.raises(TypeError, match="minimal_perturbation got"):
        minimal_perturbation(clf, X, Y, steps=3)


@pytest.mark.parametrize("kind", MACHINES)
def test_results_are_of_the_same_kind_as_of_mixtures(kind: str) -> None:
    clf = MACHINES[kind].fit(X, Y)
    r = minimal_perturbation(clf, X, Y)
    assert isinstance(r, mfakit.attacks.MinimalResult)
    assert r.settings["attack"] == "minimal"
    assert r.settings["path"] == kind
    assert (r.lower <= r.upper).all()
    assert (r.upper[r.already_wrong] == 0).all()
    np.testing.assert_array_equal(r.target_class, np.where(r.success, r.y_adv, -1))
    huge = minimal_perturbation(clf, np.concatenate([X[:2], 1e200 * X[:1]]))
    assert not np.isnan(huge.lower).any()
    close(huge.lower[:2], minimal_perturbation(clf, X[:2]).lower, rtol=1e-9)
    empty = minimal_perturbation(clf, X[:0])
    assert len(empty) == 0
    assert empty.lower.shape == (0,)
    bad = X.copy()
    bad[2, 1] = np.nan
    unchecked = minimal_perturbation(clf, bad, Y, check_finite=False)
    assert np.isnan(unchecked.lower[2])
    kept = np.arange(len(X)) != 2
    close(unchecked.upper[kept], r.upper[kept], rtol=1e-7)


def test_searches_and_column_orders_are_seen_through() -> None:
    search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1]}, cv=2).fit(X, Y)
    direct = minimal_perturbation(KNeighborsClassifier(1).fit(X, Y), X + 0.01)
    found = minimal_perturbation(search, np.asfortranarray(X + 0.01))
    close(found.lower, direct.lower)
    assert found.settings["path"] == "neighbours"
