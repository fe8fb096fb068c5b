"""True classes and targets mean the same in every attack: values of a classifier's classes_."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import close

pytest.importorskip("torch")

import mfakit
from mfakit.attacks import carlini_wagner_l2, gradient_attack, minimal_perturbation
from mfakit.classifiers import RBFSVM, LinearSVM

NAMES = {"words": np.array(["cat", "dog", "owl"]), "numbers": np.array([3, 7, 20]), "usual": np.arange(3)}


def _samples(n_classes: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    codes = np.arange(60) % n_classes
    return rng.normal(size=(60, 4)) / 4 + np.eye(4)[codes], codes


@pytest.mark.parametrize("names", sorted(NAMES))
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("make", [LinearSVM, lambda: RBFSVM(gamma=0.1)])
def test_labels_are_values_of_classes(make: Any, n_classes: int, names: str) -> None:
    X, codes = _samples(n_classes)
    y = NAMES[names][codes]
    svm = make().fit(X, y)
    attacked = slice(0, 6)
    found = [
        carlini_wagner_l2(svm, X[attacked], y[attacked], bounds=None),
        gradient_attack(svm, X[attacked], y[attacked], polish=True, step_size=0.02),
    ]
    right = svm.predict(X[attacked]) == y[attacked]
    for r in found:
        np.testing.assert_array_equal(r.y, codes[attacked])
        np.testing.assert_array_equal(r.already_wrong, ~right)
        np.testing.assert_array_equal(svm.classes_[r.y_adv], svm.predict(r.x_adv))
    both = found[0].success & found[1].success
    assert both[right].all()
    close(found[0].l2[both], found[1].l2[both], rtol=0.05)
    targets = svm.classes_[(codes[attacked] + 1) % n_classes]
    r = carlini_wagner_l2(svm, X[attacked], y[attacked], targets=targets, bounds=None)
    assert (svm.predict(r.x_adv[r.success]) == targets[r.success]).all()
    assert r.success[right].all()


def test_unknown_labels_are_named() -> None:
    X, codes = _samples(2)
    svm = LinearSVM().fit(X, NAMES["words"][codes])
    for attack in (carlini_wagner_l2, gradient_attack):
        with pytest.raises(ValueError, match="y must hold the classes cat, dog of this classifier, got values emu"):
            attack(svm, X[:2], ["cat", "emu"])
        with pytest.raises(ValueError, match=r"one label per sample, shape \(2,\), got \(1,\)"):
            attack(svm, X[:2], ["cat"])
    with pytest.raises(ValueError, match="targets must hold the classes cat, dog"):
        carlini_wagner_l2(svm, X[:2], ["cat", "dog"], targets=["owl", "cat"])


def test_labels_of_another_type_are_told_apart_from_what_they_look_like() -> None:
    X, codes = _samples(2)
    svm = LinearSVM().fit(X, codes)
    for y, found in ((codes.astype(str), r"0, 1 \(str\)"), (np.array(["a", "b"], object)[codes], r"a, b \(str\)")):
        with pytest.raises(ValueError, match=f"classes 0 to 1 of this classifier, got values {found}"):
            gradient_attack(svm, X, y)
    flags = LinearSVM().fit(X, codes == 1)
    np.testing.assert_array_equal(gradient_attack(flags, X, codes == 1).y, codes)


def test_unknown_keyword_arguments_are_answered_by_the_list() -> None:
    X, codes = _samples(2)
    svm = LinearSVM().fit(X, codes)
    with pytest.raises(
        TypeError, match=r"gradient_attack got .* 'n_thread' \(did you mean 'n_threads'\?\); .* step_size, "
    ):
        gradient_attack(svm, X, n_thread=1)
    mfa = mfakit.MFA([1.0], np.zeros((1, 4)), np.zeros((1, 4, 1)), 1.0)
    clf = mfakit.BayesClassifier([mfa, mfa.replace(means=np.ones((1, 4)))])
    with pytest.raises(
        TypeError, match=r"minimal_perturbation got .* 'steps'; the keyword arguments are path, bounds, target, p"
    ):
        minimal_perturbation(clf, X, steps=1)
    for method in (mfa.log_prob, mfa.responsibilities, clf.predict):
        with pytest.raises(
            TypeError, match=r"got an unexpected keyword argument 'zzz'; the keyword arguments are backend"
        ):
            method(X, zzz=1)
