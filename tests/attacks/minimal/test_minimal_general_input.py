"""The features path on inputs of every kind and on bad input, and when it is taken unasked."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pytest
from minimal_cases import diagonal_classifier, in_features, spheres
from support import blobs, close

import mfakit
from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.attacks.minimal import attack as minimal


def test_inputs_of_every_kind() -> None:
    clf = diagonal_classifier(1)
    X, y = clf.sample(7, rng=0, dtype=np.float64)
    whole = in_features(clf, X, y)
    single = in_features(clf, X.astype(np.float32), y)
    assert single.x_adv.dtype == np.float32
    assert (clf.predict(single.x_adv) != y)[single.success].all()
    assert single.success.sum() >= 5
    close(single.upper, whole.upper, rtol=1e-4, atol=1e-5)
    spaced = np.zeros((14, 16))
    spaced[::2, ::2] = X
    kept = spaced.copy()
    for view in (spaced[::2, ::2], np.asfortranarray(X)):
        r = in_features(clf, view, y)
        np.testing.assert_array_equal(r.lower, whole.lower)
        np.testing.assert_array_equal(r.x_adv, whole.x_adv)
    np.testing.assert_array_equal(spaced, kept)
    alone = in_features(clf, X[4:5], y[4:5])
    close(alone.lower, whole.lower[4:5], rtol=1e-12)
    close(alone.upper, whole.upper[4:5], rtol=1e-12)
    none = in_features(clf, X[:0], y[:0])
    assert (len(none), none.gap.shape, none.x_adv.shape) == (0, (0,), (0, 8))
    np.testing.assert_array_equal(in_features(clf, X).y, clf.predict(X))


def test_a_row_that_is_not_finite_spoils_its_own_only() -> None:
    clf = diagonal_classifier(1)
    X, y = clf.sample(3, rng=0, dtype=np.float64)
    whole = in_features(clf, X, y)
    X[1, 2] = np.nan
    with pytest.raises(ValueError, match="X has NaN or inf, first in row 1"):
        in_features(clf, X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN in the verification's comparisons
        r = in_features(clf, X, y, check_finite=False)
    assert np.isnan(r.lower[1]) or r.already_wrong[1]
    close(r.lower[[0, 2]], whole.lower[[0, 2]], rtol=1e-12)


@pytest.mark.parametrize(
    ("X", "y", "path", "match"),
    [
        (np.zeros((1, 8)), [0], "fast", "path must be one of"),
        (np.zeros((1, 8)), [0], "factor", r"its noise is diagonal.*path=\"features\""),
        (np.zeros((1, 7)), [0], "auto", r"\[n, 8\]"),
        (np.zeros((2, 8)), [0], "auto", r"one label per sample, shape \(2,\)"),
        (np.zeros((1, 8)), [2], "auto", "classes 0 to 1"),
    ],
)
def test_bad_input_says_what_is_wrong(X: Any, y: Any, path: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        minimal_perturbation(diagonal_classifier(0), X, y, path=path)


@pytest.mark.parametrize("noise", [0.0, [0.0], [[0.0, 1.0]]])
def test_no_noise_is_refused_and_points_to_the_limit(noise: Any) -> None:
    """σ = 0 has no density: Theorem 2's limit is what subspace_distances computes."""
    with pytest.raises(ValueError, match=r"Theorem 2 bounds the radius.*subspace_distances"):
        mfakit.MFA([1.0], np.zeros((1, 2)), np.ones((1, 2, 1)), noise)


def test_auto_takes_the_features_path_where_it_must_and_says_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    diagonal, iso = diagonal_classifier(0), spheres([[0.0, 0], [1.0, 0]], (0.1, 0.1))
    with caplog.at_level(logging.INFO, "mfakit"):
        assert minimal_perturbation(diagonal, np.zeros((20, 8))).settings["path"] == "features"
    said = [r.message for r in caplog.records if "minimal_perturbation" in r.message]
    assert len(said) == 1  # once, not per block
    assert "takes the path in the d features: its noise is diagonal" in said[0]
    monkeypatch.setattr(minimal, "why_missing", lambda name: "no compiler was found")
    with caplog.at_level(logging.INFO, "mfakit"):
        r = minimal_perturbation(iso, np.zeros((1, 2)), [0])
    np.testing.assert_allclose([r.lower[0], r.upper[0]], 0.5, rtol=1e-9)
    assert "minimal_perturbation takes the path in the d features: no compiler was found" in caplog.messages
    with pytest.raises(mfakit.BackendUnavailable, match=r"no compiler was found; use path=\"features\""):
        minimal_perturbation(iso, np.zeros((1, 2)), [0], path="factor")


@pytest.mark.parametrize("names", [["six", "zero"], [-7, 255], [False, True], [0, 1]])
def test_mixtures_of_classes_of_any_name(names: list[Any]) -> None:
    X, y = blobs(d=3)
    labels = np.array(names)[y]
    fitted = mfakit.MFAClassifier(n_components=1, n_factors=1, random_state=0).fit(X, labels)
    X, y, labels = (part[fitted.predict(X) == labels][:4] for part in (X, y, labels))
    named = minimal_perturbation(fitted, X, labels, target=np.array(names)[1 - y])
    indexed = minimal_perturbation(fitted.bayes_, X, y, target=1 - y)
    np.testing.assert_array_equal(named.lower, indexed.lower)
    np.testing.assert_array_equal(named.y_adv, indexed.y_adv)
    assert named.classifier == indexed.classifier == gradient_attack(fitted, X, labels).classifier
    with pytest.raises(ValueError, match="target must hold the classes"):
        minimal_perturbation(fitted, X[:1], labels[:1], target="another")
