"""A grade knows whose radius it is: a contradiction needs one classifier, not two."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import close, random_mfa

import mfakit
from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.attacks.identity import identity


def _bayes(scale: float = 1.0, priors: Any = (0.3, 0.7), dtype: Any = np.float64) -> mfakit.BayesClassifier:
    mixtures = [random_mfa(k=2, d=6, l=2, seed=s, spread=1.0) for s in (0, 1)]
    changed = [m.replace(means=(m.means * scale).astype(dtype), loadings=m.loadings.astype(dtype)) for m in mixtures]
    return mfakit.BayesClassifier(changed, priors)


def test_an_attack_on_another_classifier_contradicts_nothing() -> None:
    """A linear machine's boundary may well be nearer than the optimal one's."""
    from sklearn.linear_model import LogisticRegression

    clf = _bayes()
    X, y = clf.sample(60, rng=0, dtype=np.float64)
    minimal = minimal_perturbation(clf, X, y)
    for other in (LogisticRegression().fit(X, y), mfakit.BayesClassifier([*clf.mixtures], [0.01, 0.99])):
        attack = gradient_attack(other, X, y, polish=True)
        fooled = attack.success & ~minimal.already_wrong
        assert (attack.l2 < minimal.lower)[fooled].any()
        graded = attack.grade(minimal)
        assert not graded.same_classifier
        assert not len(graded.contradictions)
        assert "contradictions" not in repr(graded)
        close(graded.over_lower[fooled], (attack.l2 / minimal.lower)[fooled])


def test_a_point_below_the_bound_of_the_same_classifier_is_a_contradiction() -> None:
    clf = _bayes()
    X, y = clf.sample(20, rng=0, dtype=np.float64)
    minimal = minimal_perturbation(clf, X, y)
    attack = gradient_attack(pickle.loads(pickle.dumps(clf)), X, y, polish=True)
    shorter = dataclasses.replace(attack, l2=0.5 * minimal.lower)
    graded = shorter.grade(minimal)
    assert graded.same_classifier
    np.testing.assert_array_equal(graded.contradictions, np.flatnonzero(attack.success & (minimal.lower > 0)))
    assert f"contradictions={len(graded.contradictions)}" in repr(graded)
    assert not len(attack.grade(minimal).contradictions)


def test_what_computes_the_same_is_the_same(tmp_path: Path) -> None:
    clf = _bayes(dtype=np.float32)
    clf.save(tmp_path / "clf")
    assert identity(clf).startswith("bayes-")
    loaded = mfakit.BayesClassifier.load(tmp_path / "clf")
    for same in (copy.deepcopy(clf), pickle.loads(pickle.dumps(clf)), loaded, clf.to("cpu")):
        assert identity(same) == identity(clf)
    widened = [m.replace(means=m.means.astype(float), loadings=m.loadings.astype(float)) for m in clf.mixtures]
    assert identity(mfakit.BayesClassifier(widened, clf.priors)) == identity(clf)


def test_what_computes_something_else_is_another() -> None:
    clf = _bayes()
    m = clf.mixtures[0]
    others = [
        _bayes(scale=1.0 + 1e-12), _bayes(priors=None), mfakit.BayesClassifier(clf.mixtures[::-1], clf.priors),
        clf.symmetric(), clf.asymmetric(direction=2),
        mfakit.BayesClassifier([m.replace(weights=m.weights[::-1]), clf.mixtures[1]], clf.priors),
    ]  # fmt: skip
    names = {identity(other) for other in (clf, *others)}
    assert len(names) == 1 + len(others)


def test_torch_modules_of_a_bayes_classifier_are_that_classifier() -> None:
    torch = pytest.importorskip("torch")
    clf = _bayes()
    for logits in ("log_likelihood", "scaled"):
        assert identity(mfakit.torch.BayesClassifierModule(clf, logits)) == identity(clf)
    first, second = torch.nn.Linear(6, 2), torch.nn.Linear(6, 2)
    assert identity(first) == identity(copy.deepcopy(first)) != identity(second)
    second.load_state_dict(first.state_dict())
    assert identity(second) == identity(first)


def test_trained_classifiers_survive_a_file(tmp_path: Path) -> None:
    X, y = _bayes().sample(40, rng=0, dtype=np.float64)
    for svm in (mfakit.classifiers.LinearSVM(), mfakit.classifiers.RBFSVM(gamma=0.5)):
        fitted = svm.fit(X, y)
        fitted.save(tmp_path / "svm")
        assert identity(type(fitted).load(tmp_path / "svm")) == identity(fitted) != ""
    assert identity(object()) == ""
    assert identity(fitted) != identity(mfakit.classifiers.RBFSVM(gamma=0.6).fit(X, y))
