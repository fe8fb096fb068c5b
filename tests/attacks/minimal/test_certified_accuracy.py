"""Certified accuracy: the counts of full brackets, at less cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from minimal_cases import spheres
from support import random_mfa

import mfakit
from mfakit.attacks import certified_accuracy, minimal_perturbation
from mfakit.attacks.minimal.lagrangian import Lagrangian


def case(d: int = 10, k: int = 2, n: int = 12) -> tuple[mfakit.BayesClassifier, Any, Any]:
    mixtures = [random_mfa(d=d, k=k, l=2, seed=s, spread=0.7) for s in range(3)]
    clf = mfakit.BayesClassifier(mixtures).symmetric(0.2)
    X, y = clf.sample(n, rng=0, dtype=np.float64)
    return clf, np.clip(X, -1.5, 1.5), y


def test_two_spheres_in_closed_form() -> None:
    clf = spheres([[0.0, 0.0], [2.0, 0.0]])
    X = np.array([[0.0, 0.0], [0.5, 1.0], [0.9, -1.0], [1.2, 0.0]])
    r = certified_accuracy(clf, X, np.zeros(4), [0.05, 0.3, 0.7, 3.0])
    np.testing.assert_array_equal(r.certified, [0.75, 0.5, 0.25, 0.0])
    np.testing.assert_array_equal(r.n_certified, [3, 2, 1, 0])
    np.testing.assert_array_equal(r.n_undecided, [0, 0, 0, 0])
    assert r.n_wrong == 1
    assert len(r) == 4
    one = certified_accuracy(clf, X, np.zeros(4), 0.3)
    assert (float(one.certified), int(one.n_undecided), one.certified.shape) == (0.5, 0, ())
    assert repr(one) == "CertifiedAccuracy(n=4, eps=0.3: 0.5 (0 undecided))"
    assert "certified at 0.3" in one._repr_html_()


@pytest.mark.parametrize("path", ["auto", "features"])
@pytest.mark.parametrize("how", ["plain", "box", "target"])
def test_it_counts_what_full_brackets_say(how: str, path: Any) -> None:
    clf, X, y = case()
    options: dict[str, Any] = {"plain": {}, "box": {"bounds": (-1.5, 1.5)}, "target": {"target": (y + 1) % 3}}[how]
    r = minimal_perturbation(clf, X, y, path=path, **options)
    eps = np.quantile(r.upper[~r.already_wrong], [0.2, 0.5, 0.9]) * 1.01
    low, high = r.certified_curve(eps)
    several = certified_accuracy(clf, X, y, eps, path=path, **options)
    assert (several.certified <= high).all()
    assert (several.certified + several.undecided >= low).all()
    np.testing.assert_allclose(several.certified, low, atol=0.09)
    for e, share in zip(eps, several.certified, strict=True):
        assert float(certified_accuracy(clf, X, y, e, path=path, **options).certified) == share


def test_it_stops_where_samples_are_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    clf, X, y = case(20, 3)
    calls = []
    inner = Lagrangian.evaluate
    monkeypatch.setattr(Lagrangian, "evaluate", lambda *arguments: calls.append(1) or inner(*arguments))
    minimal_perturbation(clf, X, y, path="features", backend="numpy")
    whole = len(calls)
    calls.clear()
    r = certified_accuracy(clf, X, y, 100.0, path="features", backend="numpy")
    assert float(r.certified) == 0.0
    assert len(calls) < whole / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1.0}, r"eps must be a norm of at least 0 or several of them, \[m\], got -1.0"),
        ({"eps": [0.1, np.nan]}, "eps must be a norm of at least 0"),
        ({"eps": []}, "eps must be a norm of at least 0"),
        ({"eps": "large"}, "eps must be a norm of at least 0 .* got 'large'"),
        ({"y": None}, "certified_accuracy needs the true classes y"),
        ({"X": np.zeros((0, 2)), "y": []}, "certified_accuracy needs at least one sample"),
        ({"bounds": (1, 0)}, "bounds must be"),
    ],
)
def test_what_it_refuses(arguments: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"X": np.zeros((2, 2)), "y": [0, 0], "eps": 0.1}
    with pytest.raises(ValueError, match=message):
        certified_accuracy(spheres([[0.0, 0.0], [2.0, 0.0]]), **{**usual, **arguments})
    with pytest.raises(TypeError, match=r"certified_accuracy got .* 'epsilon'"):
        certified_accuracy(spheres([[0.0, 0.0], [2.0, 0.0]]), **usual, epsilon=1)


def test_samples_from_a_file(tmp_path: Path) -> None:
    clf = mfakit.datasets.load_bayes_pair("mnist-06").symmetric()
    X, y = clf.sample(5, rng=0)
    np.save(tmp_path / "x.npy", X)
    found, known = (certified_accuracy(clf, samples, y, [1.0, 2.9]) for samples in (str(tmp_path / "x.npy"), X))
    np.testing.assert_array_equal(found.n_certified, known.n_certified)
