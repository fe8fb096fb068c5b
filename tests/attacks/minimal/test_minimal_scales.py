"""Certificates where parameters differ by many orders of magnitude, checked in 60 digits; and searches that fail."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from minimal_cases import diagonal_classifier, in_features, spheres
from support import close

import mfakit
from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.attacks.coordinates import FactorCoordinates
from mfakit.attacks.gradient import walk
from mfakit.attacks.minimal import feature_path, roots
from mfakit.attacks.minimal.pairs import PairTable

pytest.importorskip("mpmath", reason="comes with sympy, which torch needs")
from exact_decisions import Exact, flip_below
from scaled_models import KINDS, scaled_classifier


def thin_pair(turn: Any, S: float = 9e-6, long: float = 1e5, sigma: float = 1e-8) -> mfakit.BayesClassifier:
    """Both classes have a long direction; across it one is as wide by its loadings as the other one by its noise."""
    A = np.stack([long * turn[0], S * turn[1]], axis=1)
    own, other = -3 * S * turn[1], 3 * S * turn[1]
    return mfakit.BayesClassifier(
        [mfakit.MFA([1.0], own[None], (A * [1, 0])[None], S**2), mfakit.MFA([1.0], other[None], A[None], sigma**2)]
    )


def check(clf: Any, r: Any, X: Any, seed: int = 0) -> None:
    exact = Exact(clf)
    for i in np.flatnonzero(~r.already_wrong):
        rng = np.random.default_rng(seed)
        assert flip_below(exact, X[i], int(r.y[i]), float(r.lower[i]), r.x_adv[i], rng) is None
        assert r.lower[i] <= r.upper[i]
        assert not r.success[i] or clf.predict(r.x_adv[i : i + 1])[0] != r.y[i]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("long", [1.0, 1e5])
def test_a_short_direction_beside_a_long_one_counts(turned: bool, long: float) -> None:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0] if turned else np.eye(3)
    clf = thin_pair(turn, long=long)
    X = clf.mixtures[0].means
    r = minimal_perturbation(clf, X)
    check(clf, r, X)
    if not turned:
        assert 1.86 < r.lower[0] / 9e-6 < r.upper[0] / 9e-6 < 1.8663
    attack = gradient_attack(clf, X, step_size=1e-6, polish=True)
    assert not attack.already_wrong[0]
    assert attack.success[0] or turned
    assert not attack.l2[0] < r.lower[0]


def test_a_model_that_inner_products_round_too_much_takes_the_features(caplog: pytest.LogCaptureFixture) -> None:
    clf = thin_pair(np.eye(3))
    X = clf.mixtures[0].means
    with caplog.at_level(logging.INFO, "mfakit"):
        assert minimal_perturbation(clf, X).settings["path"] == "features"
        assert gradient_attack(clf, X, step_size=1e-6).settings["path"] == "features"
    assert "noise standard deviations" in caplog.text
    for attack in (minimal_perturbation, gradient_attack):
        with pytest.raises(ValueError, match="inner products round its log-densities too much"):
            attack(clf, X, path="factor")
    apart = spheres([[0.0, 0], [1e6, 0]], (1e-3, 1e-3))
    with pytest.raises(ValueError, match="inner products round its log-densities too much"):
        minimal_perturbation(apart, np.zeros((1, 2)), path="factor")
    np.testing.assert_allclose(minimal_perturbation(apart, np.zeros((1, 2))).gap, 0.0, atol=1e-3)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_no_flip_is_below_lower(first: int) -> None:
    """Sixty models of all kinds, by turns on the path that is taken and on the features path."""
    kinds = set()
    for seed in range(first, first + 20):
        clf, X, kind = scaled_classifier(seed, diagonal=seed % 5 == 3)
        kinds.add(kind)
        check(clf, minimal_perturbation(clf, X[:1], path=("auto", "features")[seed % 2]), X[:1], seed)
    assert kinds == set(KINDS)


def test_a_pole_far_beyond_the_root_costs_no_digits() -> None:
    """Equal noise: 1 - λh was taken from the distance to that pole, and `lower` was above the radius by 1e-10."""
    clf, X, _ = scaled_classifier(731)
    check(clf, minimal_perturbation(clf, X, path="factor"), X, 731)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 1100, 100))
def test_no_flip_is_below_lower_on_either_path(first: int) -> None:
    for seed in range(first, first + 100):
        clf, X, _ = scaled_classifier(seed, diagonal=seed % 5 == 3)
        for path in ("auto", "features"):
            check(clf, minimal_perturbation(clf, X, path=path), X, seed)


def test_a_target_that_is_a_point_beside_long_sources_has_a_bracket() -> None:
    """A source that does nothing left a singular matrix, and one sample ended the whole call."""
    loadings = [[[0.0519], [-0.0228]], [[-1.36], [3.0956]], [[4.1795], [1.6235]]]
    means = [[1.3129, -2.2966], [1.1413, -0.0442], [-0.383, 1.4126]]
    own = mfakit.MFA([0.22, 0.2631, 0.5169], means, loadings, 1.5362e-05)
    other = mfakit.MFA([1.0], [[3.2607, 0.019]], np.zeros((1, 2, 0)), np.full((1, 2), 1.5362e-05))
    clf = mfakit.BayesClassifier([own, other])
    X = np.array([[215.0911, 1.1712], [0.0, 0.0]])
    r = minimal_perturbation(clf, X)
    check(clf, r, X)
    assert r.success.all()
    np.testing.assert_array_less(r.gap, 5e-3)


@pytest.mark.parametrize("error", [np.linalg.LinAlgError("Singular matrix"), OverflowError("too large")])
def test_a_search_that_fails_ends_no_other(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clf = diagonal_classifier(1)
    X, y = clf.sample(4, rng=0, dtype=np.float64)
    y = clf.predict(X)
    expected, run = in_features(clf, X, y), feature_path.Search.run

    def failing(search: Any) -> Any:
        if np.array_equal(search.sample.x, X[1]):
            raise error
        return run(search)

    monkeypatch.setattr(feature_path.Search, "run", failing)
    r = in_features(clf, X, y)
    others = [0, 2, 3]
    np.testing.assert_array_equal(r.lower[others], expected.lower[others])
    np.testing.assert_array_equal(r.x_adv[others], expected.x_adv[others])
    assert (r.lower[1], r.reason[1]) == (0.0, "not certified")
    assert r.upper[1] >= expected.lower[1]
    assert f"sample 1 is not certified (lower is 0): {type(error).__name__}" in caplog.text


@pytest.mark.parametrize("error", [TypeError, MemoryError, KeyboardInterrupt])
def test_what_is_no_numerical_failure_is_raised(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(search: Any) -> Any:
        raise error

    monkeypatch.setattr(feature_path.Search, "run", failing)
    with pytest.raises(error):
        in_features(spheres([[0.0, 0], [1.0, 0]]), np.zeros((1, 2)))


@pytest.mark.parametrize("path", ["factor", "features"])
def test_a_sample_beyond_float64_fails_alone(path: str) -> None:
    clf = spheres([[0.0, 0], [1.0, 0]])
    X = np.array([[0.0, 0.1], [-1e160, 0.0], [0.2, 0.0]])
    r = minimal_perturbation(clf, X, [0, 0, 0], path=path)
    alone = minimal_perturbation(clf, X[[0, 2]], [0, 0], path=path)
    close(r.lower[[0, 2]], alone.lower, rtol=1e-12)
    assert r.lower[1] == 0.0
    assert r.reason[1] in ("not certified", "already wrong")


def test_a_root_search_that_is_cut_short_has_proved_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    clf = diagonal_classifier(0, k=1)
    X, _ = clf.sample(3, rng=0, dtype=np.float64)
    y = clf.predict(X)
    whole = in_features(clf, X, y)
    monkeypatch.setattr(roots, "MOST_STEPS", 2)
    r = in_features(clf, X, y)
    assert (r.lower <= whole.lower * (1 + 1e-9)).all()
    assert (r.upper >= whole.lower).all()


def test_a_radius_beyond_all_lengths_of_the_model_is_not_infinite() -> None:
    """Equal means, noise that differs by little: the nearest flip is 1e14 means away."""
    clf = spheres(np.zeros((2, 1)), (1e14, 1.001e14))
    r = in_features(clf, np.zeros((1, 1)), [0])
    expected = np.sqrt(2 * np.log(1.001) / (1 - 1 / 1.001**2)) * 1e14
    np.testing.assert_allclose([r.lower[0], r.upper[0]], expected, rtol=1e-6)


def test_a_walk_that_starts_on_the_wrong_side_by_inner_products_goes_through_the_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clf = spheres([[0.0, 0, 0], [3.0, 4, 0]])
    X = np.random.default_rng(0).normal(scale=0.1, size=(4, 3))
    features = gradient_attack(clf, X, path="features", polish=True)
    kernel = walk.FactorWalk._walk

    def astray(self: Any, q: Any, steps: Any, arrays: Any) -> None:
        kernel(self, q, steps, arrays)
        arrays[-1][1, :2] = walk.ENDS.index("already wrong"), 0

    monkeypatch.setattr(walk.FactorWalk, "_walk", astray)
    factor = gradient_attack(clf, X, path="factor", polish=True)
    for name in ("success", "n_steps", "reason", "source", "target"):
        np.testing.assert_array_equal(getattr(factor, name), getattr(features, name), err_msg=name)
    close(factor.x_adv, features.x_adv, atol=1e-12)


def test_roundings_that_a_table_of_pairs_amplifies_are_counted() -> None:
    """A small angle between two subspaces multiplies roundings, and so does the share that was dropped."""
    units = []
    for angle in (0.0, 0.1, 1.0):
        lines = np.array([[1.0, 0, 0]]), np.array([[np.cos(angle), np.sin(angle), 0]])
        clf = mfakit.BayesClassifier([mfakit.MFA([1.0], np.zeros((1, 3)), u[:, :, None], 0.01) for u in lines])
        units.append(PairTable.of(FactorCoordinates.of(clf)).quadrics.units)
    assert units[1] > 5 * units[2]
    assert units[0] == pytest.approx(units[2])
