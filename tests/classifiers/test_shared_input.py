"""What every classifier says of labels to score with, of names of columns, and of arrays that lie elsewhere."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cnn_cases import TINY, images

from mfakit.attacks import carlini_wagner_l2, gradient_attack
from mfakit.classifiers import RBFSVM, LinearSVM

pytest.importorskip("torch")

from mfakit.classifiers import CNN, TRADES

ALL = [CNN(**TINY), TRADES(**TINY, n_attack_steps=1), LinearSVM(), RBFSVM(gamma="scale")]
IDS = ["cnn", "trades", "linear", "rbf"]


@pytest.fixture(params=ALL, ids=IDS)
def clf(request: pytest.FixtureRequest) -> Any:
    from sklearn.base import clone

    return clone(request.param)


BAD_LABELS = {
    "none": (None, r"\.score requires y to be passed"),
    "few": ([0, 1], "one label per sample, got inconsistent numbers: 30 and 2"),
    "dates": (np.zeros(30, "datetime64[D]"), "y must hold class labels, integers or strings, got datetime64"),
    "complex": (np.zeros(30, complex), "y must hold class labels, .* got complex128"),
    "nan": (np.full(30, np.nan), "y contains NaN"),
    "matrix": (np.zeros((30, 2)), "y should be a 1d array"),
    "word": ("abc", "y should be a 1d array"),
}


def test_labels_to_score_with(clf: Any) -> None:
    X, y = images(30)
    clf.fit(X, y)
    assert clf.score(X, y.tolist()) == clf.score(X, y.astype(float))
    for labels, match in BAD_LABELS.values():
        with pytest.raises(ValueError, match=match) as caught:
            clf.score(X, labels)
        assert "\n" not in str(caught.value)


def test_attacks_know_no_names_of_columns(clf: Any) -> None:
    """scikit-learn's warning that rows have no names is for the caller of the classifier, and not for an attack."""
    pandas = pytest.importorskip("pandas")
    X, y = images(30)
    named = pandas.DataFrame(X, columns=[f"pixel {i}" for i in range(36)])
    plain, clf = clf.fit(X, y), type(clf)(**clf.get_params()).fit(named, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r = gradient_attack(clf, named, y, max_steps=20)
        cw = carlini_wagner_l2(clf, named, y, max_iterations=3, rescue_searches=0)
    np.testing.assert_array_equal(r.x_adv, gradient_attack(plain, X, y, max_steps=20).x_adv)
    assert len(cw) == 30
    assert list(clf.feature_names_in_) == list(named.columns)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        clf.predict(X)


class Elsewhere:
    """As much of a CuPy array as is looked at before it is refused."""

    def __init__(self, X: Any) -> None:
        self.shape, self.dtype, self.ndim, self.device = X.shape, X.dtype, X.ndim, SimpleNamespace(id=0)

    def __len__(self) -> int:
        return int(self.shape[0])


Elsewhere.__module__, Elsewhere.__name__ = "cupy", "ndarray"


def test_arrays_on_a_device_are_refused(clf: Any) -> None:
    X, y = images(30)
    sentence = r"X is on cuda:0, and this classifier reads X on the host; pass X.cpu\(\) or X.get\(\)"
    with pytest.raises(ValueError, match=sentence):
        clf.fit(Elsewhere(X), y)
    with pytest.raises(ValueError, match=sentence):
        clf.fit(X, y).predict(Elsewhere(X))
