"""`upper` of a bracket that is not closed: no gradient attack of ours ends nearer, whichever of its settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from minimal_cases import diagonal_classifier
from numpy.typing import NDArray
from support import close, random_mfa

import mfakit
from mfakit._arrays.options import Options
from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.attacks.blocks import victims_of
from mfakit.attacks.gradient.walk import FeatureWalk
from mfakit.attacks.minimal.shorten import _is_stationary, shorten
from mfakit.backends import why_missing

Array = NDArray[Any]
NATIVE = pytest.mark.skipif(why_missing("native") is not None, reason=f"compiled: {why_missing('native')}")


def _soft_pair(seed: int, d: int = 60) -> tuple[mfakit.BayesClassifier, Array, Array]:
    """Broad components of unequal noise that overlap; and samples of narrower ones, so that most are right."""
    mixtures = [random_mfa(d=d, k=6, l=3 + c, seed=seed + c, spread=0.15) for c in range(2)]
    narrow = mfakit.BayesClassifier([m.replace(loadings=0.15 * m.loadings) for m in mixtures]).symmetric(0.02)
    broad = [m.replace(noise_variance=0.04 * np.arange(1, 7)) for m in narrow.mixtures]
    return mfakit.BayesClassifier(broad), *narrow.sample(60, rng=0, dtype=np.float64)


def _largest_lead(clf: Any, X: Array, y: Array, upper: Array) -> float:
    """By how much, relatively, the best of many gradient attacks ends below `upper`; negative if none does."""
    lead = -1.0
    every = [(step, polish, "rechosen") for step in (0.1, 0.05, 0.02, 0.01) for polish in (True, False)]
    for step, polish, targets in [*every, (0.05, True, "frozen")]:
        attack = gradient_attack(clf, X, y, step_size=step, polish=polish, targets=targets, max_steps=300)
        lead = max(lead, float((1.0 - attack.l2 / upper)[attack.success].max(initial=-1.0)))
    return lead


@NATIVE
@pytest.mark.parametrize(("seed", "beaten"), [(1, [11, 54]), (2, [26, 59]), (10, [11, 46, 58])])
def test_no_gradient_attack_is_nearer_than_upper(seed: int, beaten: list[int]) -> None:
    """The duals' own points were beaten by 3, 2 and 5% at the samples named."""
    clf, X, y = _soft_pair(seed)
    X, y = X[[0, 1, *beaten]], y[[0, 1, *beaten]]
    r = minimal_perturbation(clf, X, y, path="factor")
    assert (r.gap > 1e-3).any()
    assert _largest_lead(clf, X, y, r.upper) < 1e-6
    right = ~r.already_wrong
    assert (clf.predict(r.x_adv) != y)[right].all()
    close(np.linalg.norm(r.x_adv - X, axis=1)[right], r.upper[right], rtol=1e-14)


def test_no_gradient_attack_is_nearer_on_the_features_path() -> None:
    clf = diagonal_classifier(4, k=2, d=6)
    X, y = clf.sample(6, rng=0, dtype=np.float64)
    r = minimal_perturbation(clf, X, y, path="features")
    assert _largest_lead(clf, X, y, r.upper) < 1e-6


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_a_point_that_is_no_nearest_one_is_moved_along_the_boundary(noise: str) -> None:
    """From points found in random directions, 1.3 times too far and more, to where the way is perpendicular to it."""
    if noise == "isotropic":
        clf = mfakit.BayesClassifier([random_mfa(k=2, d=6, l=2, seed=s, spread=1.0) for s in (0, 1)])
    else:
        clf = diagonal_classifier(4, k=2, d=6)
    X, y = clf.sample(6, rng=0, dtype=np.float64)
    r = minimal_perturbation(clf, X, y, path="features")
    rows = np.flatnonzero(r.success)[:3]
    X, y, lower = X[rows], y[rows], r.lower[rows]
    victim = victims_of(clf, 1, len(X), Options())[0]
    search = FeatureWalk(victim, X, y)
    rng = np.random.default_rng(0)
    for i in range(len(X)):
        while not search.state.flipped[i]:
            u = rng.normal(size=X.shape[1])
            search.here[i] = X[i] + rng.uniform(1.3, 20.0) * r.upper[rows[i]] * u / np.linalg.norm(u)
            search.state.flipped[i] = clf.predict(search.here[i : i + 1])[0] != y[i]
    before = np.linalg.norm(search.here - X, axis=1)
    shorten(victim, search, X, lower, clf, None)
    after = np.linalg.norm(search.here - X, axis=1)
    assert (before > 1.29 * r.upper[rows]).all()
    assert (after < before / 1.05).all()
    assert (clf.predict(search.here + 1e-6 * (search.here - X)) != y).all()
    for i in range(len(X)):
        part = slice(i, i + 1)
        assert _is_stationary(victim, X[part], y[part], search.here[part])


def test_where_no_point_was_found_the_attack_may_find_one() -> None:
    clf = diagonal_classifier(4, k=2, d=6)
    X, y = clf.sample(3, rng=0, dtype=np.float64)
    victim = victims_of(clf, 1, 3, Options())[0]
    search = FeatureWalk(victim, X, y)
    attacked = np.flatnonzero(~search.state.already_wrong)
    shorten(victim, search, X, np.where(np.arange(3) == attacked[0], np.inf, 0.0), clf, None)
    assert search.state.flipped.tolist() == [i in attacked[1:] for i in range(3)]
    assert (clf.predict(search.here[attacked[1:]]) != y[attacked[1:]]).all()
    np.testing.assert_array_equal(search.here[attacked[0]], X[attacked[0]])  # proved to be out of reach


@NATIVE
def test_a_shortened_point_does_not_depend_on_the_batch_or_the_threads() -> None:
    clf, X, y = _soft_pair(10)
    rows = [11, 46, 0, 1]  # the first two are shortened
    X, y = X[rows], y[rows]
    whole = minimal_perturbation(clf, X, y, path="factor", n_threads=2)
    assert (whole.gap > 2e-4).any()
    for i in range(2):
        alone = minimal_perturbation(clf, X[i : i + 1], y[i : i + 1], path="factor", n_threads=1)
        np.testing.assert_allclose(alone.upper, whole.upper[i], rtol=1e-9)
        close(alone.x_adv[0], whole.x_adv[i], atol=1e-7 * whole.upper[i])


def test_components_without_weight_play_no_part() -> None:
    clf, X, y = _soft_pair(10)
    rows = [11, 46]
    dead = [
        m.replace(
            weights=np.append(m.weights, 0.0), means=np.append(m.means, np.full((1, 60), 0.1), axis=0),
            loadings=np.append(m.loadings, m.loadings[:1], axis=0), noise_variance=np.append(m.noise_variance, 1e-6),
        )
        for m in clf.mixtures
    ]  # fmt: skip
    expected = minimal_perturbation(clf, X[rows], y[rows])
    found = minimal_perturbation(mfakit.BayesClassifier(dead), X[rows], y[rows])
    close(found.upper, expected.upper, rtol=1e-9)
