"""Minimal perturbations: exact where the answer is known, never contradicted by an attack, and honest at the edges."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from minimal_cases import slsqp_radius, spheres
from support import close, random_mfa

import mfakit
from mfakit.attacks import gradient_attack, minimal_perturbation
from mfakit.backends import why_missing

pytestmark = pytest.mark.skipif(why_missing("native") is not None, reason=f"compiled: {why_missing('native')}")


def single_pair(seed: int, sigmas: tuple[float, float] = (0.3, 0.3), d: int = 8, l: int = 2) -> mfakit.BayesClassifier:
    """One Gaussian per class, where the bracket is a point."""
    mixtures = [random_mfa(k=1, d=d, l=l, seed=2 * seed + c, spread=1.0) for c in range(2)]
    return mfakit.BayesClassifier([m.replace(noise_variance=s**2) for m, s in zip(mixtures, sigmas, strict=True)])


def test_theorem1_in_closed_form() -> None:
    """Two equal spheres: the distance to the plane in the middle."""
    clf = spheres([[0.0, 0, 0], [3.0, 4, 0]])
    X = np.random.default_rng(0).normal(scale=0.1, size=(20, 3))
    r = minimal_perturbation(clf, X)
    expected = 2.5 - X @ np.array([0.6, 0.8, 0])
    close(r.lower, expected, rtol=2e-10)
    close(r.upper, expected, rtol=2e-10)


@pytest.mark.parametrize("sigmas", [(0.3, 0.3), (0.2, 0.5), (0.5, 0.2)])
@pytest.mark.parametrize("seed", range(3))
def test_single_gaussians_are_exact_and_agree_with_an_independent_solver(
    seed: int, sigmas: tuple[float, float]
) -> None:
    clf = single_pair(seed, sigmas)
    X, y = clf.sample(2, rng=seed, dtype=np.float64)
    r = minimal_perturbation(clf, X, y)
    right = ~r.already_wrong
    assert right.any()
    np.testing.assert_array_less(r.gap[right], 1e-8)
    rng = np.random.default_rng(seed)
    for i in np.flatnonzero(right):
        attack = gradient_attack(clf, X[i : i + 1], y[i : i + 1], polish=True, step_size=0.02)
        starts = [attack.x_adv[0] - X[i], *rng.normal(size=(2, 8))]
        close(r.upper[i], slsqp_radius(clf, X[i], int(y[i]), starts), rtol=1e-6)


def test_as_many_factors_as_features() -> None:
    """With l = d there is no complement of the span, and κ is no eigenvalue."""
    clf = single_pair(3, (0.2, 0.6), d=3, l=3)
    X, y = clf.sample(6, rng=0, dtype=np.float64)
    r = minimal_perturbation(clf, X, y)
    rng = np.random.default_rng(0)
    for i in np.flatnonzero(~r.already_wrong):
        expected = slsqp_radius(clf, X[i], int(y[i]), list(rng.normal(size=(8, 3))))
        close(r.upper[i], expected, rtol=1e-6)
        assert r.lower[i] <= expected * (1 + 1e-7)


def mixture_pair(seed: int = 0, d: int = 60) -> mfakit.BayesClassifier:
    mixtures = [random_mfa(d=d, k=6, l=3 + s, seed=seed + s, spread=0.15) for s in range(2)]
    return mfakit.BayesClassifier([m.replace(loadings=0.15 * m.loadings) for m in mixtures]).symmetric(0.02)


@pytest.mark.parametrize("variant", ["symmetric", "asymmetric", "own sigmas"])
def test_no_attack_is_below_a_lower_bound(variant: str) -> None:
    sym = mixture_pair()
    clf = {
        "symmetric": lambda: sym,
        "asymmetric": lambda: sym.asymmetric(direction=40),
        "own sigmas": lambda: mfakit.BayesClassifier(
            [m.replace(noise_variance=4e-4 * np.arange(1, 7)) for m in sym.mixtures], [0.3, 0.7]
        ),
    }[variant]()
    X, y = sym.sample(60, rng=0, dtype=np.float64)
    r = minimal_perturbation(clf, X, y)
    rng = np.random.default_rng(0)
    right = np.flatnonzero(~r.already_wrong)
    assert r.success[right].all()
    for step in (0.1, 0.03, 0.01):
        attack = gradient_attack(clf, X, y, polish=True, step_size=step)
        assert (attack.l2[attack.success] >= r.lower[attack.success]).all()
    # Random directions, pushed to the boundary: none may flip within the certified radius.
    for _ in range(30):
        U = rng.normal(size=X.shape)
        U *= (0.999999 * r.lower / np.linalg.norm(U, axis=1))[:, None]
        np.testing.assert_array_equal(clf.predict(X + U)[right], y[right])
    # Nor towards the best point known, just short of it.
    towards = X + (r.x_adv - X) * (r.lower / np.where(r.upper > 0, r.upper, 1) * (1 - 1e-9))[:, None]
    np.testing.assert_array_equal(clf.predict(towards)[right], y[right])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_returned_points_flip_and_have_the_norm_that_is_reported(dtype: Any) -> None:
    clf = mixture_pair(3)
    X, y = clf.sample(50, rng=1, dtype=dtype)
    r = minimal_perturbation(clf, X, y)
    assert r.x_adv.dtype == dtype
    assert (clf.predict(r.x_adv) != y)[r.success].all()
    norms = np.linalg.norm(r.x_adv.astype(float) - X, axis=1)
    close(norms[r.success], r.upper[r.success], rtol=1e-14)
    np.testing.assert_array_equal(r.l2[r.success], r.upper[r.success])
    assert (r.lower <= r.upper).all()


def test_three_classes_take_the_nearest() -> None:
    means = np.zeros((3, 2))
    means[1, 0], means[2, 1] = 2.0, 1.0
    r = minimal_perturbation(spheres(means, (0.1, 0.1, 0.1)), np.zeros((1, 2)), [0])
    np.testing.assert_allclose([r.lower[0], r.upper[0]], 0.5, rtol=1e-9)
    assert r.target_class.tolist() == [2]


def test_already_wrong_is_zero_and_marked() -> None:
    clf = spheres([[0.0, 0], [1.0, 0]])
    X = np.array([[0.9, 0.0], [0.1, 0.0]])
    r = minimal_perturbation(clf, X, [0, 0])
    assert r.already_wrong.tolist() == [True, False]
    assert (r.lower[0], r.upper[0], r.success[0]) == (0.0, 0.0, False)
    np.testing.assert_array_equal(r.x_adv[0], X[0])


def test_a_class_that_cannot_be_reached_has_an_infinite_radius() -> None:
    clf = mfakit.BayesClassifier(spheres([[0.0, 0], [1.0, 0]]).mixtures, [1.0, 0.0])
    r = minimal_perturbation(clf, np.zeros((2, 2)), [0, 0])
    assert np.isinf(r.lower).all()
    assert np.isinf(r.upper).all()
    assert not r.success.any()


def test_a_narrow_class_inside_a_broad_one_is_the_hard_case() -> None:
    """Concentric spheres, x at the centre: no gradient and no preferred direction, yet a finite radius."""
    s, t, d = 0.1, 1.0, 3
    clf = spheres(np.zeros((2, d)), (s, t))
    r = minimal_perturbation(clf, np.zeros((1, d)), [0])
    expected = np.sqrt(2 * d * np.log(t / s) / (1 / s**2 - 1 / t**2))
    np.testing.assert_allclose(r.lower, expected, rtol=1e-6)
    assert r.lower[0] <= expected


def test_results_do_not_depend_on_the_batch_or_the_threads() -> None:
    clf = mixture_pair(5)
    X, y = clf.sample(20, rng=2, dtype=np.float64)
    whole = minimal_perturbation(clf, X, y, n_threads=1)
    again = minimal_perturbation(clf, X, y, n_threads=2)
    alone = minimal_perturbation(clf, X[7:8], y[7:8])
    np.testing.assert_array_equal(whole.lower, again.lower)
    close(alone.lower, whole.lower[7:8], rtol=1e-12)
    close(alone.upper, whole.upper[7:8], rtol=1e-9)


def test_theorem2_is_the_limit() -> None:
    """As σ → 0 the certified radius is at least min d_ij / 2, for every sample."""
    base = mixture_pair(7)
    radius = mfakit.theory.theorem2_radius(base).radius
    for sigma in (1e-2, 1e-3, 1e-4):
        clf = base.symmetric(sigma)
        X, y = clf.sample(50, rng=3, dtype=np.float64)
        r = minimal_perturbation(clf, X, y)
        own, other = mfakit.theory.own_and_other_distances(clf, X, y)
        assert (r.upper >= (other - own) / 2).all()
        if sigma <= 1e-3:
            assert (r.lower >= radius * (1 - 5 * sigma)).all()


@pytest.mark.parametrize(
    ("clf", "X", "y", "match"),
    [
        (
            mfakit.BayesClassifier([random_mfa(noise="diagonal", seed=s) for s in (0, 1)]),
            np.zeros((1, 12)),
            [0],
            "diagonal",
        ),
        (object(), np.zeros((1, 2)), [0], "not a BayesClassifier"),
        (spheres([[0.0, 0], [1.0, 0]]), np.full((1, 2), np.nan), [0], "X has NaN or inf, first in row 0"),
        (spheres([[0.0, 0], [1.0, 0]]), np.zeros((1, 3)), [0], r"\[n, 2\]"),
        (spheres([[0.0, 0], [1.0, 0]]), np.zeros((1, 2)), [2], "classes 0 to 1"),
    ],
)
def test_bad_input_says_what_is_wrong(clf: Any, X: Any, y: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        minimal_perturbation(clf, X, y, path="factor")


def test_an_attack_is_graded_against_the_truth() -> None:
    clf = mixture_pair(9)
    X, y = clf.sample(20, rng=4, dtype=np.float64)
    minimal = minimal_perturbation(clf, X, y)
    attack = gradient_attack(clf, X, y, polish=True, step_size=0.02)
    graded = attack.grade(minimal)
    close(graded.over_upper, attack.l2 / minimal.upper)
    close(graded.over_lower, attack.l2 / minimal.lower)
    assert not len(graded.contradictions)
    assert 1.0 <= graded.mean < 1.2
    close(minimal.grade(minimal).mean, 1.0)
    # A norm below the bound is reported, not averaged away.
    impossible = dataclasses.replace(attack, l2=np.where(np.arange(20) == 3, 0.5 * minimal.lower, attack.l2))
    assert impossible.grade(minimal).contradictions.tolist() == [3]
    with pytest.raises(ValueError, match="same samples, got 20 and 5"):
        attack.grade(minimal_perturbation(clf, X[:5], y[:5]))


def test_no_samples() -> None:
    r = minimal_perturbation(spheres([[0.0, 0], [1.0, 0]]), np.zeros((0, 2)), np.zeros(0, int))
    assert len(r) == 0
    assert r.gap.shape == (0,)
