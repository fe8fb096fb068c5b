"""The attack to copy: a copy of its file is an attack like any other, verified, measured and graded."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import mfakit
from mfakit.attacks import MinimalResult, gradient_attack, minimal_perturbation, template
from mfakit.classifiers import LinearSVM

Case = tuple[mfakit.BayesClassifier, np.ndarray, np.ndarray, MinimalResult]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The template as someone's own file with names of its own, beside the other attacks."""
    text = Path(template.__file__).read_text().replace("line_attack", "my_attack").replace('"line"', '"mine"')
    path = tmp_path_factory.mktemp("attack") / "mine.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("mfakit.attacks.mine", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["mfakit.attacks.mine"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mfakit.attacks.mine"]


@pytest.fixture(scope="module")
def pair() -> Case:
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    X, y = clf.sample(12, rng=0, balanced=True)
    return clf, X, y, minimal_perturbation(clf, X, y)


def test_its_results_are_verified_measured_and_graded(copy: ModuleType, pair: Case) -> None:
    clf, X, y, minimal = pair
    r = copy.my_attack(clf, X, y)
    assert r.success.all()
    np.testing.assert_array_equal(clf.predict(r.x_adv), 1 - y)
    np.testing.assert_allclose(r.l2, np.linalg.norm(r.x_adv.astype(float) - X, axis=1), rtol=1e-12)
    assert r.x_adv.dtype == X.dtype
    grade = r.grade(minimal)
    assert grade.same_classifier
    assert not len(grade.contradictions)
    assert 1.0 <= grade.mean < 1.2
    assert r.settings == {
        "attack": "mine", "first": 0.05, "max_steps": 60, "bounds": None, "targeted": False, "dtype": "float32",
    }  # fmt: skip


def test_a_straight_line_meets_a_plane_where_the_closed_form_does(copy: ModuleType, pair: Case) -> None:
    _, X, y, _ = pair
    svm = LinearSVM().fit(X, y)
    r, exact = copy.my_attack(svm, X.astype(float), y), gradient_attack(svm, X.astype(float), y)
    assert exact.settings["path"] == "closed-form"
    np.testing.assert_allclose(r.l2, exact.l2, rtol=1e-6)


def test_it_takes_what_the_other_attacks_take(copy: ModuleType, pair: Case) -> None:
    clf, X, y, _ = pair
    wrong = copy.my_attack(clf, X, 1 - y)
    assert wrong.already_wrong.all()
    np.testing.assert_array_equal(wrong.x_adv, X)
    near = np.clip(X, 0.0, 1.0)
    boxed = copy.my_attack(clf, near, bounds=(0, 1))
    assert boxed.success.any()
    assert boxed.x_adv.min() >= 0.0
    assert boxed.x_adv.max() <= 1.0
    too_short = copy.my_attack(clf, X, y, max_steps=2)
    assert set(too_short.reason) == {"max_steps"}
    np.testing.assert_array_equal(copy.my_attack(clf, X[3:5], y[3:5]).success, [True, True])


def test_its_errors_name_it(copy: ModuleType, pair: Case) -> None:
    clf, X, y, _ = pair
    with pytest.raises(ValueError, match="first must be a positive number, finite, got -1"):
        copy.my_attack(clf, X, y, first=-1)
    with pytest.raises(TypeError, match="my_attack"):
        copy.my_attack(clf, X, y, length=1)
    with pytest.raises(ValueError, match=r"X must be \[n, 784\]"):
        copy.my_attack(clf, X[:, :5])
    with pytest.raises(TypeError, match="list is not"):
        copy.my_attack([], X)


def test_it_computes_on_the_host(copy: ModuleType, pair: Case) -> None:
    clf, X, y, _ = pair
    with pytest.raises(ValueError, match='my_attack computes on the host, and backend="cuda" is a device\'s'):
        copy.my_attack(clf, X, y, backend="cuda")
